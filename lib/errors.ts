// The error tree. Users match on `code` and on class; `instanceof` works by brand, so that two copies of the
// package in one process still recognise each other's errors. Invariant: an NbdError always has a code.

import { constants } from 'node:os';
import { visible, visibleInspection } from './util/visible.js';

/** What an error is about; every field is there only where it applies. */
export interface NbdErrorDetails {
  /** The errno name, such as `'EINVAL'`. */
  code: string;
  /** The method that was called, such as `'cache'`. */
  syscall?: string | undefined;
  /** The cookie of the command that failed. */
  cookie?: bigint | undefined;
  /** First byte of the range that was asked for. */
  offset?: bigint | undefined;
  /** Number of bytes that were asked for. */
  count?: bigint | undefined;
  exportName?: string | undefined;
  /** What the server said, printable characters only, at most 4096 bytes of it. */
  serverMessage?: string | undefined;
  /** When the connection ended: true where the command may have reached the server, so that its effect is not known. */
  sent?: boolean | undefined;
  /** Why TLS failed, as a word such as `'expired'` or `'name'`; the message has the rest. */
  tlsProblem?: string | undefined;
  /** Whether trying again later may help, where the class and the code do not decide it. */
  transient?: boolean | undefined;
  cause?: unknown;
}

// Linux numbers for the names that os.constants lacks on some platforms.
const FALLBACK_ERRNO: Readonly<Record<string, number>> = { ESHUTDOWN: 108, ENOTSUP: 95, ENOTFOUND: 3008, ESTALE: 116 };

/** The positive number of an errno name on this platform; EINVAL's for a name that it does not know. */
export function errnoOf(code: string): number {
  const table: Record<string, number | undefined> = constants.errno;
  return table[code] ?? FALLBACK_ERRNO[code] ?? constants.errno.EINVAL;
}

/** A lost or refused connection: what another attempt, later, may not meet. ENOENT: the socket's server is not up yet. */
const CONNECTION_CODES = (
  'ECONNREFUSED ECONNRESET ECONNABORTED EPIPE ENOTCONN ETIMEDOUT ESHUTDOWN EHOSTUNREACH EHOSTDOWN ENETUNREACH ENETDOWN ' +
  'ENETRESET EADDRNOTAVAIL ENOENT EAGAIN EBUSY EINTR EMFILE ENFILE ENOBUFS ENOMEM'
).split(' ');
/** EIO is also what servers make of errors that NBD has no code for, such as a time limit of their storage. */
const COMMAND_CODES = ['EIO', 'ENOMEM', 'ESHUTDOWN', 'EAGAIN', 'EBUSY', 'ETIMEDOUT'];

/** The codes with which an error of a class is transient. For NbdError itself, and a user's subclass, any of them. */
const TRANSIENT_CODES: Readonly<Record<string, readonly string[]>> = {
  NbdStrictError: [],
  NbdStateError: [],
  NbdProtocolError: [],
  NbdQueueFullError: ['EAGAIN'],
  NbdUnflushedError: [],
  NbdCommandError: COMMAND_CODES,
  NbdOptionError: ['ESHUTDOWN'],
  NbdConnectionError: CONNECTION_CODES,
};
const ANY_CODE = [...COMMAND_CODES, ...CONNECTION_CODES];
/** What the system says of a program that cannot be started, or a file that must not be opened: it stays so. */
const FINAL_CAUSES = ['EACCES', 'EPERM', 'ENOTFOUND', 'ENOEXEC', 'ENAMETOOLONG', 'ENOTDIR', 'EINVAL'];

function isTransient({ name, code, cause }: NbdError): boolean {
  const isEnd = code === 'ENOTCONN' || name === 'NbdStateError';
  if (isEnd && cause !== undefined) {
    // The end of a connection is as transient as its reason.
    if (cause instanceof NbdError) return cause.transient;
    const reason = Object(cause) as { code?: unknown; syscall?: unknown };
    const isSpawn = typeof reason.syscall === 'string' && reason.syscall.startsWith('spawn');
    if ((isSpawn && reason.code === 'ENOENT') || FINAL_CAUSES.includes(String(reason.code))) return false;
  }
  return (TRANSIENT_CODES[name] ?? ANY_CODE).includes(code);
}

interface InspectOptions {
  readonly colors?: boolean;
}

const brandOf = (name: string): symbol => Symbol.for(`nbd-sdk.error.${name}`);

function brand(constructor: abstract new (...args: never[]) => object, name: string): void {
  const key = brandOf(name);
  Object.defineProperty(constructor.prototype, key, { value: true });
  Object.defineProperty(constructor.prototype, 'name', { value: name, writable: true, configurable: true });
  Object.defineProperty(constructor, Symbol.hasInstance, {
    value(this: unknown, candidate: unknown): boolean {
      // A user's own subclass inherits this function; only the branded class itself may match by brand.
      if (this !== constructor) {
        return (Function.prototype[Symbol.hasInstance] as (v: unknown) => boolean).call(this, candidate);
      }
      return typeof candidate === 'object' && candidate !== null && key in candidate;
    },
  });
}

/**
 * Base of everything that this package rejects with or throws (an abort rejects with the signal's own reason).
 *
 * `transient` tells whether the same work may succeed when it is tried again later, on a new connection where this one
 * has ended:
 *
 * | Class                | `transient` is true                                                                       |
 * | -------------------- | ----------------------------------------------------------------------------------------- |
 * | `NbdCommandError`    | with `EIO`, `ENOMEM`, `ESHUTDOWN`, `EAGAIN`, `EBUSY`, `ETIMEDOUT`                         |
 * | `NbdConnectionError` | with a code of the network (`ECONNREFUSED`, `ECONNRESET`, `EPIPE`, `ETIMEDOUT`, `EHOSTUNREACH` …), of missing resources (`EMFILE`, `ENOMEM` …), and `ENOENT`, a Unix socket without a server; with `ENOTCONN` unless the program has closed the connection itself, or its `cause` is an error that is not transient |
 * | `NbdOptionError`     | with `ESHUTDOWN`                                                                          |
 * | `NbdQueueFullError`  | always                                                                                    |
 * | `NbdStateError`      | where the connection was ended by an error (`cause`) that is transient                    |
 * | `NbdUnflushedError`  | never: a flush that is tried again succeeds, and the writes are gone all the same          |
 * | `NbdStrictError`     | never                                                                                     |
 * | `NbdProtocolError`   | never                                                                                     |
 * | `NbdError` itself    | with any of these codes                                                                   |
 */
export class NbdError extends Error {
  declare readonly code: string;
  declare readonly errno: number;
  declare readonly syscall?: string;
  declare readonly cookie?: bigint;
  declare readonly offset?: bigint;
  declare readonly count?: bigint;
  declare readonly exportName?: string;
  declare readonly serverMessage?: string;
  declare readonly sent?: boolean;
  declare readonly tlsProblem?: string;

  constructor(message: string, details: NbdErrorDetails) {
    // Whatever a peer or a URI has put into it.
    super(visible(message), details.cause === undefined ? undefined : { cause: details.cause });
    // Assigned one by one: a connection may end with a million commands, and an error for each.
    const fields = details as unknown as Record<string, unknown>;
    const own = this as unknown as Record<string, unknown>;
    for (const key in fields) {
      const value = fields[key];
      if (value === undefined || key === 'cause') continue;
      // The prototype's getter stands in the way of an assignment.
      if (key === 'transient') Object.defineProperty(this, key, { value, enumerable: true, configurable: true });
      else own[key] = value;
    }
    own['errno'] = errnoOf(details.code);
  }

  /** Whether trying again later may help; the table above. */
  get transient(): boolean {
    return isTransient(this);
  }
}

/** Refused by this package before anything was queued: bad arguments and strict-mode violations. Nothing was sent. */
export class NbdStrictError extends NbdError {}

/** The server answered a command with an error; the connection lives on. */
export class NbdCommandError extends NbdError {}

/** The server refused an option of the handshake. */
export class NbdOptionError extends NbdError {}

/** The peer broke the protocol. */
export class NbdProtocolError extends NbdError {}

/** The connection could not be made, or ended; the transport's error is the `cause`. */
export class NbdConnectionError extends NbdError {}

/** The call is not allowed in the state that the connection is in. */
export class NbdStateError extends NbdError {}

/** `maxQueued` commands are waiting already; nothing was queued. */
export class NbdQueueFullError extends NbdError {}

/** A range of bytes of an export. */
export interface ByteRange {
  /** First byte. */
  readonly offset: bigint;
  /** Number of bytes. */
  readonly length: bigint;
}

/**
 * A pool has lost a connection, and with it perhaps writes that the server had acknowledged and not yet put on permanent
 * storage: `ranges` has all of them, in order, and possibly bytes between them. Write them again, then flush. The code
 * is `EIO`, as fsync(2) reports lost writes.
 */
export class NbdUnflushedError extends NbdError {
  declare readonly ranges: readonly ByteRange[];

  constructor(message: string, { ranges = [], ...details }: NbdErrorDetails & { ranges?: readonly ByteRange[] }) {
    super(message, details);
    Object.defineProperty(this, 'ranges', { value: ranges, enumerable: true, writable: true, configurable: true });
  }
}

// A cause of Node's, and the fields, have paths and names as they were given.
Object.defineProperty(NbdError.prototype, Symbol.for('nodejs.util.inspect.custom'), {
  value(this: NbdError, depth: number, options: InspectOptions, inspect: (value: unknown, how: object) => string) {
    return visibleInspection(inspect(this, { ...options, depth, customInspect: false }), options.colors === true);
  },
  writable: true,
  configurable: true,
});

brand(NbdError, 'NbdError');
brand(NbdStrictError, 'NbdStrictError');
brand(NbdCommandError, 'NbdCommandError');
brand(NbdOptionError, 'NbdOptionError');
brand(NbdProtocolError, 'NbdProtocolError');
brand(NbdConnectionError, 'NbdConnectionError');
brand(NbdStateError, 'NbdStateError');
brand(NbdQueueFullError, 'NbdQueueFullError');
brand(NbdUnflushedError, 'NbdUnflushedError');
