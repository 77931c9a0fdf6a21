// Fault injection: makes chosen requests fail, stall, be late, be held, change their data or end the connection.
// Invariant: the effect depends only on the order of requests and bytes and on the seed, never on time, so that a failing
// test fails again.

import {
  aFunction,
  aString,
  checkOptions,
  oneOf,
  type OptionCheck,
  type OptionTable,
  refuse,
  shown,
  wholeNumber,
} from '../util/option-checks.js';
import { type FaultedRequest, type HeldRequest, HeldRequests } from './held-requests.js';
import { fraction, hashOf } from './seeded.js';
import { type CommandName, NAMED_COMMANDS, type NamedCommand } from './transmission/command-name.js';

/** Selects requests. Conditions that are left out match everything; `nth` counts requests that match all others. */
export interface FaultCondition {
  /** The client's method or the protocol's command: `pread` and `read` are the same. Default any. */
  readonly command?: NamedCommand | undefined;
  /** The name of the export. Default any. */
  readonly exportName?: string | undefined;
  /** Only the nth match, from 1, counted over all connections since the fault was added. Default every match. */
  readonly nth?: number | undefined;
  /** Maximum number of times that the fault happens. Default no limit. */
  readonly times?: number | undefined;
  /**
   * How likely the fault is for a request that matches, above 0 and up to 1. Which requests are hit follows from the
   * server's `seed` and the order of the requests. Default 1.
   */
  readonly probability?: number | undefined;
  /** A further condition; the fault applies if it returns true. */
  readonly when?: ((request: FaultedRequest) => boolean) | undefined;
}

/** Replies to the request with this error instead of carrying it out. */
export interface ErrorFault extends FaultCondition {
  /** `EPERM`, `EIO`, `ENOMEM`, `EINVAL`, `ENOSPC`, `EOVERFLOW`, `ENOTSUP` or `ESHUTDOWN`. */
  readonly error: string;
  /** Error text for clients with structured replies. Default none. */
  readonly message?: string | undefined;
}

/** Never replies to the request; later requests are served. */
export interface StallFault extends FaultCondition {
  /** Must be true. */
  readonly stall: true;
}

/** Carries out the request after a delay. */
export interface DelayFault extends FaultCondition {
  /** Milliseconds. */
  readonly delay: number;
}

/**
 * Holds the request until it is released, by the plan's `release()` or by one of `held`: replies can be put into any
 * order. At most `maxInFlight` requests of a connection are held; then it is not read from.
 */
export interface HoldFault extends FaultCondition {
  /** `request`: the request is carried out when it is released. `reply`: it is carried out at once, the reply waits. */
  readonly hold: 'request' | 'reply';
}

/**
 * Changes the data of a read on the way to the client, or of a write on the way to the backend; the request succeeds.
 * Which bits are changed follows from the server's `seed` and the order of the requests.
 */
export interface CorruptFault extends FaultCondition {
  /** `pread` or `pwrite`. Default both. */
  readonly command?: 'pread' | 'pwrite' | 'read' | 'write' | undefined;
  /** The number of bits to invert in each request: 1 to 65536. Fewer change if the data has fewer bits. */
  readonly corrupt: number;
}

/** Ends the connection instead of replying to the request. */
export interface CutFault extends FaultCondition {
  /** `reset` resets a TCP connection; other streams are closed. */
  readonly cut: 'close' | 'reset';
}

/** Ends the connection, or stops sending, after an exact number of bytes from the server. */
export interface BytesFault {
  /** Number of bytes, including the handshake; with TLS, of plaintext. */
  readonly afterBytes: number;
  /** What happens then: the connection is closed or reset, or the server sends nothing more. */
  readonly then: 'close' | 'reset' | 'stall';
  /** The connection's number, from 1 in order of arrival. Default every connection. */
  readonly connection?: number | undefined;
}

/** A fault that applies to single requests. */
export type RequestFault = ErrorFault | StallFault | DelayFault | HoldFault | CorruptFault | CutFault;
/** Any fault. */
export type Fault = RequestFault | BytesFault;

/** What happens to a request: a fault, and a number that follows from the seed. */
export interface ChosenFault {
  /** The fault. */
  readonly fault: RequestFault;
  /** What random choices for the request follow from. */
  readonly hash: number;
}

const MAX_DELAY = 2 ** 31 - 1;
const MAX_SEED = 2 ** 32 - 1;
const ERRORS = ['EPERM', 'EIO', 'ENOMEM', 'EINVAL', 'ENOSPC', 'EOVERFLOW', 'ENOTSUP', 'ESHUTDOWN'] as const;

const PAYLOAD_COMMANDS = ['pread', 'pwrite', 'read', 'write'] as const;
const MAX_CORRUPT = 65536;

const aProbability: OptionCheck<number> = (where, value) => {
  if (typeof value === 'number' && value > 0 && value <= 1) return value;
  throw refuse(where, `must be above 0 and at most 1, not ${shown(value)}`);
};

const CONDITIONS: OptionTable<FaultCondition> = {
  command: oneOf(...NAMED_COMMANDS),
  exportName: aString,
  nth: wholeNumber(1),
  times: wholeNumber(1),
  probability: aProbability,
  when: aFunction,
};
const cut = oneOf('close', 'reset');

/** The keys that a fault may have, by its effect. */
const FAULTS: Readonly<Record<string, OptionTable<object>>> = {
  error: { ...CONDITIONS, error: oneOf(...ERRORS), message: aString },
  stall: { ...CONDITIONS, stall: oneOf(true) },
  delay: { ...CONDITIONS, delay: wholeNumber(0, MAX_DELAY) },
  hold: { ...CONDITIONS, hold: oneOf('request', 'reply') },
  corrupt: { ...CONDITIONS, command: oneOf(...PAYLOAD_COMMANDS), corrupt: wholeNumber(1, MAX_CORRUPT) },
  cut: { ...CONDITIONS, cut },
  afterBytes: { afterBytes: wholeNumber(0), then: oneOf('close', 'reset', 'stall'), connection: wholeNumber(1) },
} satisfies Record<string, Record<string, OptionCheck>>;

function checkFault(fault: Fault): Fault {
  const where = 'FaultPlan.push';
  if (typeof fault !== 'object' || (fault as unknown) === null) throw refuse(where, `not a fault: ${shown(fault)}`);
  const effects = Object.keys(FAULTS).filter(
    (effect) => (fault as unknown as Record<string, unknown>)[effect] !== undefined,
  );
  const [effect = '', ...others] = effects;
  const table = FAULTS[effect];
  if (table === undefined || others.length > 0) {
    const given = effects.length === 0 ? Object.keys(fault) : effects;
    const list = Object.keys(FAULTS).join(', ');
    throw refuse(where, `a fault must have exactly one of ${list}; this has ${given.map(shown).join(', ') || 'none'}`);
  }
  const checked = checkOptions<object>(where, fault, table) as Fault;
  if ('afterBytes' in checked && (checked as Partial<BytesFault>).then === undefined) {
    throw refuse(where, "afterBytes requires then: 'close', 'reset' or 'stall'");
  }
  return checked;
}

function commandOf(name: NamedCommand | undefined): CommandName | undefined {
  return name === 'read' ? 'pread' : name === 'write' ? 'pwrite' : name;
}

interface Entry {
  readonly fault: RequestFault;
  readonly command: CommandName | undefined;
  /** Which fault this is, from 1, since the plan was made. */
  readonly number: number;
  seen: number;
  done: number;
}

/**
 * The faults of a server, which may be changed while it runs. Only the first fault in the list that applies to a
 * request happens, but every fault that matches the request counts it for `nth`.
 *
 * @example
 * server.faults.push({ command: 'cache', nth: 3, error: 'EIO' });
 * server.faults.push({ afterBytes: 100, then: 'close', connection: 2 });
 */
export class FaultPlan {
  readonly #requests: Entry[] = [];
  readonly #bytes: BytesFault[] = [];
  readonly #held = new HeldRequests();
  readonly #seed: number;
  #added = 0;

  /** Creates an empty plan. `seed` decides about `probability` and `corrupt`. Default 0. */
  constructor(seed = 0) {
    this.#seed = wholeNumber(0, MAX_SEED)('FaultPlan: seed', seed);
  }

  /**
   * Appends faults, with their counts at 0.
   *
   * @throws NbdStrictError `EINVAL`: a fault has an unknown key, a bad value, or not exactly one effect. None is added.
   */
  push(...faults: readonly Fault[]): void {
    for (const fault of faults.map(checkFault)) {
      if ('afterBytes' in fault) this.#bytes.push(fault);
      else {
        this.#added += 1;
        this.#requests.push({ fault, command: commandOf(fault.command), number: this.#added, seen: 0, done: 0 });
      }
    }
  }

  /** The requests that are held now, in the order in which they were. */
  get held(): readonly HeldRequest[] {
    return this.#held.all;
  }

  /** Releases all requests that are held now. */
  release(): void {
    for (const held of this.held) held.release();
  }

  /**
   * Resolves with the held requests when there are at least `count` of them. Rejects with the signal's reason, and with
   * `ESHUTDOWN` when the server is closed.
   */
  untilHeld(count = 1, signal?: AbortSignal): Promise<readonly HeldRequest[]> {
    return this.#held.until(count, signal);
  }

  /** Removes all faults. Requests that are already stalled or held stay so. */
  clear(): void {
    this.#requests.length = 0;
    this.#bytes.length = 0;
  }

  /** Whether there are no faults for requests. */
  get isEmpty(): boolean {
    return this.#requests.length === 0;
  }

  /** Adds a held request; the function that is returned removes it. For the server's use. */
  hold(request: FaultedRequest, released: () => void): () => void {
    return this.#held.add(request, released);
  }

  /** Rejects what waits in untilHeld(). For the server's use. */
  close(): void {
    this.#held.close();
  }

  /** The fault for this request, or null. Counts the request. For the server's use. */
  match(request: FaultedRequest): ChosenFault | null {
    let chosen: ChosenFault | null = null;
    for (const entry of this.#requests) {
      const { fault } = entry;
      if (entry.command !== undefined && entry.command !== request.command) continue;
      if (fault.exportName !== undefined && fault.exportName !== request.exportName) continue;
      if ('corrupt' in fault && request.command !== 'pread' && request.command !== 'pwrite') continue;
      if (fault.when !== undefined && !fault.when(request)) continue;
      entry.seen += 1;
      if (chosen !== null) continue;
      if (fault.nth !== undefined && fault.nth !== entry.seen) continue;
      if (fault.times !== undefined && entry.done >= fault.times) continue;
      const hash = hashOf(this.#seed, entry.number, entry.seen);
      if (fault.probability !== undefined && fraction(hash) >= fault.probability) continue;
      entry.done += 1;
      chosen = { fault, hash };
    }
    return chosen;
  }

  /** The fault with the lowest limit on what a connection sends, or null. For the server's use. */
  bytesFault(connection: number): BytesFault | null {
    let chosen: BytesFault | null = null;
    for (const fault of this.#bytes) {
      const applies = fault.connection === undefined || fault.connection === connection;
      if (applies && (chosen === null || fault.afterBytes < chosen.afterBytes)) chosen = fault;
    }
    return chosen;
  }
}
