// Faults on order: which request shall fail, stall, be late or take the connection with it. Invariant: what happens
// depends on the order of requests and bytes only, never on time or chance, so that a failing test fails again.

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

/** Picks requests. Conditions left out match everything; `nth` counts the requests that match the others. */
export interface FaultCondition {
  /** By the name of the client's method or of the protocol: `pread` and `read` are the same. */
  readonly command?: NamedCommand;
  readonly exportName?: string;
  /** Only the nth match, from 1, over all connections since the fault was added. */
  readonly nth?: number;
  /** At most so many times; without it a fault without `nth` happens at every match. */
  readonly times?: number;
  /** Any further test of the request. */
  readonly when?: (request: FaultedRequest) => boolean;
}

/** A request, as a fault's `when` sees it. */
export interface FaultedRequest {
  readonly command: CommandName;
  /** NBD_CMD_FLAG_* bits. */
  readonly flags: number;
  readonly offset: number | bigint;
  readonly count: number | bigint;
  readonly exportName: string;
  /** The connection's number, from 1 in order of arrival. */
  readonly connection: number;
}

/** The request is answered with this errno name, and not carried out. */
export interface ErrorFault extends FaultCondition {
  /** `EPERM`, `EIO`, `ENOMEM`, `EINVAL`, `ENOSPC`, `EOVERFLOW`, `ENOTSUP` or `ESHUTDOWN`. */
  readonly error: string;
  /** Text that goes along with a structured reply. */
  readonly message?: string;
}

/** The request is never answered; later ones are. */
export interface StallFault extends FaultCondition {
  readonly stall: true;
}

/** The request is carried out after so many milliseconds. */
export interface DelayFault extends FaultCondition {
  readonly delay: number;
}

/** The connection ends in place of an answer: closed, or reset where the stream is TCP. */
export interface CutFault extends FaultCondition {
  readonly cut: 'close' | 'reset';
}

/**
 * The connection ends, or falls silent, after exactly so many bytes from the server, the handshake's included; with
 * TLS, of plaintext.
 */
export interface BytesFault {
  readonly afterBytes: number;
  readonly then: 'close' | 'reset' | 'stall';
  /** The connection's number, from 1 in order of arrival; without it every connection. */
  readonly connection?: number;
}

export type Fault = ErrorFault | StallFault | DelayFault | CutFault | BytesFault;
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

/** For each effect the keys that a fault with it may have. */
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
    throw refuse(where, `a fault has exactly one of ${list}; this one has ${given.map(shown).join(', ') || 'none'}`);
  }
  const checked = checkOptions<object>(where, fault, table) as Fault;
  if ('afterBytes' in checked && (checked as Partial<BytesFault>).then === undefined) {
    throw refuse(where, "afterBytes needs then: 'close', 'reset' or 'stall'");
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
 * The faults of a server, changeable while it runs. For each request the first fault in the list that applies happens,
 * and only that one; all that match count it.
 *
 * @example
 * server.faults.push({ command: 'cache', nth: 3, error: 'EIO' });
 * server.faults.push({ afterBytes: 100, then: 'close', connection: 2 });
 */
export class FaultPlan {
  readonly #requests: Entry[] = [];
  readonly #bytes: BytesFault[] = [];

  /**
   * Adds faults behind those there are; their counts begin at 0.
   *
   * @throws NbdStrictError `EINVAL`: a fault has an unknown key, a bad value, or not exactly one effect. None is added.
   */
  push(...faults: readonly Fault[]): void {
    for (const fault of faults.map(checkFault)) {
      if ('afterBytes' in fault) this.#bytes.push(fault);
      else this.#requests.push({ fault, command: commandOf(fault.command), seen: 0, done: 0 });
    }
  }

  /** Removes all faults. What stalls already stays so. */
  clear(): void {
    this.#requests.length = 0;
    this.#bytes.length = 0;
  }

  /** True when no request can meet a fault. */
  get isEmpty(): boolean {
    return this.#requests.length === 0;
  }

  /** The fault that meets this request, if any. Counts it. */
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

  /** The limit on what a connection sends, if any: the lowest. */
  bytesFault(connection: number): BytesFault | null {
    let chosen: BytesFault | null = null;
    for (const fault of this.#bytes) {
      const applies = fault.connection === undefined || fault.connection === connection;
      if (applies && (chosen === null || fault.afterBytes < chosen.afterBytes)) chosen = fault;
    }
    return chosen;
  }
}
