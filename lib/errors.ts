// The error classes. Users match on `code` and on class; `instanceof` works by brand, so that two copies of the
// package in one process recognise each other's errors. Invariant: an NbdError always has a code.

import { nodeModule } from './util/platform.js';
import { visible, visibleInspection } from './util/visible.js';

/** The details of an error; fields that do not apply are absent. */
export interface NbdErrorDetails {
  /** The errno name, such as `'EINVAL'`. */
  code: string;
  /** The method that was called, such as `'cache'`. */
  syscall?: string | undefined;
  /** The cookie of the command that failed. */
  cookie?: bigint | undefined;
  /** Offset of the first byte of the requested range. */
  offset?: bigint | undefined;
  /** Number of bytes of the requested range. */
  count?: bigint | undefined;
  /** The name of the export that was requested. */
  exportName?: string | undefined;
  /** The server's error text: printable characters only, at most 4096 bytes of it. */
  serverMessage?: string | undefined;
  /** Set when the connection ended: whether the command may have reached the server, so that its effect is unknown. */
  sent?: boolean | undefined;
  /** Why TLS failed, as a word such as `'expired'` or `'name'`; the message has the details. */
  tlsProblem?: string | undefined;
  /** Whether trying again later may help. Default: decided by the class and the code. */
  transient?: boolean | undefined;
  /** The error that caused this one. */
  cause?: unknown;
}

/** Linux numbers, for the names that os.constants lacks on some platforms, and for browsers. */
const LINUX_ERRNO: Readonly<Record<string, number>> = {
  ...{ EPERM: 1, ENOENT: 2, ESRCH: 3, EINTR: 4, EIO: 5, ENXIO: 6, EAGAIN: 11, ENOMEM: 12, EACCES: 13, EFAULT: 14 },
  ...{ EBUSY: 16, EEXIST: 17, ENOTDIR: 20, EISDIR: 21, EINVAL: 22, EMFILE: 24, EFBIG: 27, ENOSPC: 28, EROFS: 30 },
  ...{ EPIPE: 32, ERANGE: 34, ENAMETOOLONG: 36, ENOSYS: 38, EPROTO: 71, EOVERFLOW: 75, EILSEQ: 84, ENOTSUP: 95 },
  ...{ EADDRINUSE: 98, ECONNABORTED: 103, ECONNRESET: 104, ENOBUFS: 105, ENOTCONN: 107, ESHUTDOWN: 108 },
  ...{ ETIMEDOUT: 110, ECONNREFUSED: 111, EHOSTUNREACH: 113, ESTALE: 116, ENOTFOUND: 3008 },
};

const SYSTEM_ERRNO: Record<string, number | undefined> = { ...nodeModule('node:os')?.constants.errno };
const EINVAL = 22;

/** The positive number of an errno name on this platform; that of EINVAL for an unknown name. */
export function errnoOf(code: string): number {
  return SYSTEM_ERRNO[code] ?? LINUX_ERRNO[code] ?? EINVAL;
}

/** A lost or refused connection; a later attempt may succeed. ENOENT: the Unix socket's server has not started yet. */
const CONNECTION_CODES = (
  'ECONNREFUSED ECONNRESET ECONNABORTED EPIPE ENOTCONN ETIMEDOUT ESHUTDOWN EHOSTUNREACH EHOSTDOWN ENETUNREACH ENETDOWN ' +
  'ENETRESET EADDRNOTAVAIL ENOENT EAGAIN EBUSY EINTR EMFILE ENFILE ENOBUFS ENOMEM'
).split(' ');
/** EIO is included because servers use it for errors that NBD has no code for, such as a timeout of their storage. */
const COMMAND_CODES = ['EIO', 'ENOMEM', 'ESHUTDOWN', 'EAGAIN', 'EBUSY', 'ETIMEDOUT'];

/** The codes for which errors of a class are transient. For NbdError itself and users' subclasses: any of them. */
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
/** Causes that trying again does not change: a program that cannot be started, a file that must not be opened. */
const FINAL_CAUSES = ['EACCES', 'EPERM', 'ENOTFOUND', 'ENOEXEC', 'ENAMETOOLONG', 'ENOTDIR', 'EINVAL'];

function isTransient({ name, code, cause }: NbdError): boolean {
  const isEnd = code === 'ENOTCONN' || name === 'NbdStateError';
  if (isEnd && cause !== undefined) {
    // The end of a connection is transient if its reason is.
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
      // A user's subclass inherits this function; only the branded class itself may match by brand.
      if (this !== constructor) {
        return (Function.prototype[Symbol.hasInstance] as (v: unknown) => boolean).call(this, candidate);
      }
      return typeof candidate === 'object' && candidate !== null && key in candidate;
    },
  });
}

/**
 * Base class of all errors that this package throws or rejects with (an abort rejects with the signal's reason).
 *
 * `transient` is true if the same operation may succeed when it is tried again later, on a new connection if this one
 * has ended:
 *
 * | Class                | `transient` is true                                                                       |
 * | -------------------- | ----------------------------------------------------------------------------------------- |
 * | `NbdCommandError`    | with `EIO`, `ENOMEM`, `ESHUTDOWN`, `EAGAIN`, `EBUSY`, `ETIMEDOUT`                         |
 * | `NbdConnectionError` | with a network error (`ECONNREFUSED`, `ECONNRESET`, `EPIPE`, `ETIMEDOUT`, `EHOSTUNREACH` …), lack of resources (`EMFILE`, `ENOMEM` …), or `ENOENT`, a Unix socket without a server; with `ENOTCONN` unless the program has closed the connection itself or the `cause` is not transient |
 * | `NbdOptionError`     | with `ESHUTDOWN`                                                                          |
 * | `NbdQueueFullError`  | always                                                                                    |
 * | `NbdStateError`      | if the connection was ended by an error (`cause`) that is transient                       |
 * | `NbdUnflushedError`  | never: a flush that is tried again succeeds, and the writes are lost all the same         |
 * | `NbdStrictError`     | never                                                                                     |
 * | `NbdProtocolError`   | never                                                                                     |
 * | `NbdError` itself    | with any of these codes                                                                   |
 */
export class NbdError extends Error {
  /** The errno name, such as `'EINVAL'` (libnbd: `nbd_get_errno`). Always set. */
  declare readonly code: string;
  /** The positive errno number of `code` on this platform. */
  declare readonly errno: number;
  /** The method that was called, such as `'cache'`. */
  declare readonly syscall?: string;
  /** The cookie of the command that failed. */
  declare readonly cookie?: bigint;
  /** Offset of the first byte of the requested range. */
  declare readonly offset?: bigint;
  /** Number of bytes of the requested range. */
  declare readonly count?: bigint;
  /** The name of the export that was requested. */
  declare readonly exportName?: string;
  /** The server's error text: printable characters only, at most 4096 bytes of it. */
  declare readonly serverMessage?: string;
  /**
   * Set when the connection ended before the command completed. False: the command was never sent. True: it may have
   * reached the server, so its effect is unknown.
   */
  declare readonly sent?: boolean;
  /** Why TLS failed, as a word such as `'expired'` or `'name'`; the message has the details. */
  declare readonly tlsProblem?: string;

  /** Creates an error; unprintable characters in `message` are escaped. */
  constructor(message: string, details: NbdErrorDetails) {
    // The message may contain text from a peer or a URI.
    super(visible(message), details.cause === undefined ? undefined : { cause: details.cause });
    // Assigned one by one for speed: a connection may end with a million commands, and an error for each.
    const fields = details as unknown as Record<string, unknown>;
    const own = this as unknown as Record<string, unknown>;
    for (const key in fields) {
      const value = fields[key];
      if (value === undefined || key === 'cause') continue;
      // The prototype's getter prevents an assignment.
      if (key === 'transient') Object.defineProperty(this, key, { value, enumerable: true, configurable: true });
      else own[key] = value;
    }
    own['errno'] = errnoOf(details.code);
  }

  /** Whether trying again later may help; see the table above. */
  get transient(): boolean {
    return isTransient(this);
  }
}

/** A call was refused before anything was queued or sent: bad arguments and strict-mode violations. */
export class NbdStrictError extends NbdError {}

/** The server replied to a command with an error; the connection stays usable. */
export class NbdCommandError extends NbdError {}

/** The server refused an option of the handshake. */
export class NbdOptionError extends NbdError {}

/** The peer violated the protocol. */
export class NbdProtocolError extends NbdError {}

/** The connection could not be established, or it ended; the transport's error is the `cause`. */
export class NbdConnectionError extends NbdError {}

/** The call is not allowed in the current state of the connection. */
export class NbdStateError extends NbdError {}

/** `maxQueued` commands are already waiting; nothing was queued. */
export class NbdQueueFullError extends NbdError {}

/** A range of bytes of an export. */
export interface ByteRange {
  /** First byte. */
  readonly offset: bigint;
  /** Number of bytes. */
  readonly length: bigint;
}

/**
 * A pool lost a connection, and with it possibly writes that the server had acknowledged but not yet put on permanent
 * storage. `ranges` contains all of them in order, and possibly bytes between them. Write them again, then flush. The
 * code is `EIO`, as fsync(2) reports lost writes.
 */
export class NbdUnflushedError extends NbdError {
  /** The ranges that may have been lost, in order. */
  declare readonly ranges: readonly ByteRange[];

  constructor(
    message: string,
    { ranges = [], ...details }: NbdErrorDetails & { ranges?: readonly ByteRange[] | undefined },
  ) {
    super(message, details);
    Object.defineProperty(this, 'ranges', { value: ranges, enumerable: true, writable: true, configurable: true });
  }
}

// The fields, and causes from Node, contain paths and names unescaped.
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

/**
 * `cause`, which it has as its cause, with another message; its class, code and fields stay what they are. `fields` are
 * for those that it lacks; a `syscall` takes the place of its own.
 */
export function withMessage(
  cause: NbdError,
  message: string,
  fields: { readonly syscall?: string; readonly offset?: bigint } = {},
): NbdError {
  const own = Object.fromEntries(Object.entries(cause));
  const syscall = fields.syscall ?? cause.syscall;
  const error = new NbdError(message, { ...fields, ...own, code: cause.code, syscall, cause });
  // Its own class, which may be one that a user has derived.
  Object.setPrototypeOf(error, Object.getPrototypeOf(cause) as object);
  Error.captureStackTrace(error, withMessage);
  return error;
}
