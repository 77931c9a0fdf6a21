// Short names for the tables of spec/wire: one message or constant per word, so that a script reads as one line.

import { type PeerRecording, type PeerScript } from '../../lib/testing/index.js';
import { type NbdConnectionOptions } from '../../lib/index.js';

export {
  blockSizeInfo as BSIZE,
  chunk as SR,
  close,
  exportInfo as XINFO,
  extendedChunk as XR,
  fin,
  greeting as H,
  join,
  oldstyle as OLD,
  on,
  optionReply as REP,
  quiet,
  rawplain,
  recv,
  repeat,
  rst,
  simpleReply as SIMPLE,
  sleep,
  stall,
  tls,
  trickle,
  u16,
  u32,
  u64,
} from '../../lib/testing/index.js';

/** Options. */
export const OPT = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  STARTTLS: 5,
  INFO: 6,
  GO: 7,
  SR: 8,
  LISTMETA: 9,
  SETMETA: 10,
  EXT: 11,
} as const;

/** Replies to options. */
export const R = {
  ACK: 1,
  SERVER: 2,
  INFO: 3,
  META: 4,
  UNSUP: 0x80000001,
  POLICY: 0x80000002,
  INVALID: 0x80000003,
  PLATFORM: 0x80000004,
  TLS_REQD: 0x80000005,
  UNKNOWN: 0x80000006,
  SHUTDOWN: 0x80000007,
  BSREQD: 0x80000008,
  TOO_BIG: 0x80000009,
  EXTREQD: 0x8000000a,
} as const;

/** Chunk types and the flag that ends a reply. */
export const T = { NONE: 0, DATA: 1, HOLE: 2, BS: 5, BSEXT: 6, ERR: 0x8001, ERROFF: 0x8002 } as const;
export const DONE = 1;

/** Command types. */
export const CMD = { READ: 0, WRITE: 1, DISC: 2, FLUSH: 3, TRIM: 4, CACHE: 5, ZERO: 6, STATUS: 7 } as const;

export const SIZE = 2 ** 20;
export const FLAGS = 0xded;
export const NO_SR: PeerScript = { structuredReplies: false };
export const EXT: PeerScript = { extendedHeaders: true };

/** What the client must do; `|` in a table is several of them. */
export type Outcome =
  | { readonly kind: 'OK' | 'D' | 'D!' | 'D+A' | 'E' | 'E+A' | 'T' | 'OK-close' | 'OK then D' | 'F+D' | 'local' }
  | { readonly kind: 'F' | 'F+DISC' | 'F then D' | 'L'; readonly code: string };

export const OK: Outcome = { kind: 'OK' };
export const D: Outcome = { kind: 'D' };
export const D_IN_CLEAR: Outcome = { kind: 'D!' };
export const D_ABORT: Outcome = { kind: 'D+A' };
export const E: Outcome = { kind: 'E' };
export const E_ABORT: Outcome = { kind: 'E+A' };
export const TIMEOUT: Outcome = { kind: 'T' };
export const OK_CLOSE: Outcome = { kind: 'OK-close' };
export const OK_THEN_D: Outcome = { kind: 'OK then D' };
export const F_AND_D: Outcome = { kind: 'F+D' };
export const LOCAL: Outcome = { kind: 'local' };
export const F = (code: string): Outcome => ({ kind: 'F', code });
export const F_DISC = (code: string): Outcome => ({ kind: 'F+DISC', code });
export const F_THEN_D = (code: string): Outcome => ({ kind: 'F then D', code });
export const L = (code: string): Outcome => ({ kind: 'L', code });

/** What an operation gave. */
export interface OperationResult {
  readonly name: string;
  status: 'pending' | 'resolved' | 'rejected';
  value?: unknown;
  error?: unknown;
  /** Milliseconds from its start to its end. */
  took: number;
}

/** One row of a table. */
export interface WireCase {
  readonly id: string;
  /** What the server does. */
  readonly what: string;
  readonly script: PeerScript;
  /** Default `R`: the operations after connecting, in words, as the runner knows them. */
  readonly user?: string;
  readonly client?: NbdConnectionOptions;
  /** The first is preferred, any is allowed. */
  readonly expected: readonly Outcome[];
  readonly transport?: 'tcp';
  /** Milliseconds; the connect timeout and the request timeout of cases that time out. */
  readonly timeout?: number;
  /** The server's violation reaches the client after the operation under test has rightly succeeded. */
  readonly late?: true;
  /** The stream ends, or something is refused: no violation that an error could name. */
  readonly ends?: true;
  /** The reads are answered with zeroes. */
  readonly zeroes?: true;
  /** RSS may grow by this many MiB. */
  readonly memory?: number;
  /** The peer itself blocks the event loop with its own work. */
  readonly heavy?: true;
  /** The client may send what the record calls a violation. */
  readonly mayViolate?: RegExp;
  /** Further checks; `results` are the operations, the first one being `connect`. */
  readonly check?: (results: readonly OperationResult[], seen: PeerRecording) => void;
}
