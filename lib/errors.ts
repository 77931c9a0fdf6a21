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
  cause?: unknown;
}

// Linux numbers for the names that os.constants lacks on some platforms.
const FALLBACK_ERRNO: Readonly<Record<string, number>> = { ESHUTDOWN: 108, ENOTSUP: 95, ENOTFOUND: 3008, ESTALE: 116 };

/** The positive number of an errno name on this platform; EINVAL's for a name that it does not know. */
export function errnoOf(code: string): number {
  const table: Record<string, number | undefined> = constants.errno;
  return table[code] ?? FALLBACK_ERRNO[code] ?? constants.errno.EINVAL;
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

/** Base of everything that this package rejects with or throws (an abort rejects with the signal's own reason). */
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
    const fields: Record<string, unknown> = { ...details, errno: errnoOf(details.code) };
    delete fields['cause'];
    for (const [key, value] of Object.entries(fields)) {
      if (value !== undefined) {
        Object.defineProperty(this, key, { value, enumerable: true, writable: true, configurable: true });
      }
    }
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
