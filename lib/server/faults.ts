// Fault injection: makes chosen requests fail, stall, be late or end the connection. Invariant: the effect depends only
// on the order of requests and bytes, never on time or chance, so that a failing test fails again.

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
  /** A further condition; the fault applies if it returns true. */
  readonly when?: ((request: FaultedRequest) => boolean) | undefined;
}

/** A request, as passed to `when` of a fault and to `onRequest` of a server. */
export interface FaultedRequest {
  /** The command. */
  readonly command: CommandName;
  /** NBD_CMD_FLAG_* bits. */
  readonly flags: number;
  /** First byte of the range. */
  readonly offset: number | bigint;
  /** Number of bytes of the range. */
  readonly count: number | bigint;
  /** The name of the export. */
  readonly exportName: string;
  /** The connection's number, from 1 in order of arrival. */
  readonly connection: number;
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

/** Any fault. */
export type Fault = ErrorFault | StallFault | DelayFault | CutFault | BytesFault;
/** A fault that applies to single requests. */
export type RequestFault = ErrorFault | StallFault | DelayFault | CutFault;

const MAX_DELAY = 2 ** 31 - 1;
const ERRORS = ['EPERM', 'EIO', 'ENOMEM', 'EINVAL', 'ENOSPC', 'EOVERFLOW', 'ENOTSUP', 'ESHUTDOWN'] as const;

const CONDITIONS: OptionTable<FaultCondition> = {
  command: oneOf(...NAMED_COMMANDS),
  exportName: aString,
  nth: wholeNumber(1),
  times: wholeNumber(1),
  when: aFunction,
};
const cut = oneOf('close', 'reset');

/** The keys that a fault may have, by its effect. */
const FAULTS: Readonly<Record<string, OptionTable<object>>> = {
  error: { ...CONDITIONS, error: oneOf(...ERRORS), message: aString },
  stall: { ...CONDITIONS, stall: oneOf(true) },
  delay: { ...CONDITIONS, delay: wholeNumber(0, MAX_DELAY) },
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
  return name === 'pread' ? 'read' : name === 'pwrite' ? 'write' : name;
}

interface Entry {
  readonly fault: RequestFault;
  readonly command: CommandName | undefined;
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

  /**
   * Appends faults, with their counts at 0.
   *
   * @throws NbdStrictError `EINVAL`: a fault has an unknown key, a bad value, or not exactly one effect. None is added.
   */
  push(...faults: readonly Fault[]): void {
    for (const fault of faults.map(checkFault)) {
      if ('afterBytes' in fault) this.#bytes.push(fault);
      else this.#requests.push({ fault, command: commandOf(fault.command), seen: 0, done: 0 });
    }
  }

  /** Removes all faults. Requests that are already stalled stay stalled. */
  clear(): void {
    this.#requests.length = 0;
    this.#bytes.length = 0;
  }

  /** Whether there are no faults for requests. */
  get isEmpty(): boolean {
    return this.#requests.length === 0;
  }

  /** The fault for this request, or null. Counts the request. For the server's use. */
  match(request: FaultedRequest): RequestFault | null {
    let chosen: RequestFault | null = null;
    for (const entry of this.#requests) {
      const { fault } = entry;
      if (entry.command !== undefined && entry.command !== request.command) continue;
      if (fault.exportName !== undefined && fault.exportName !== request.exportName) continue;
      if (fault.when !== undefined && !fault.when(request)) continue;
      entry.seen += 1;
      if (chosen !== null) continue;
      if (fault.nth !== undefined && fault.nth !== entry.seen) continue;
      if (fault.times !== undefined && entry.done >= fault.times) continue;
      entry.done += 1;
      chosen = fault;
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
