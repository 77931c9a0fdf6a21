// What a connection connects to, whatever it is: a socket, a program, a stream. The makers of targets return it.

import type { NbdUriParts } from '../../protocol/uri.js';
import type { Transport } from '../../transport/transport.js';
import type { StartedProgram } from './program-end.js';

type Without<Parts, Keys extends string> = Parts extends unknown ? Omit<Parts, Keys> : never;
/** The part of a URI that describes the location. */
export type TargetLocation = Without<NbdUriParts, 'tls' | 'exportName' | `tls${string}`>;

/** What a connection connects to. */
export interface Target {
  /** For messages: `127.0.0.1:10809`, a socket's path. */
  readonly description: string;
  /** A TCP connect that fails leaves the connection as it was, so that it can be tried again (libnbd). */
  readonly mayRetry: boolean;
  /** The TCP host, which is sent to the server (SNI) if it is a name. */
  readonly serverName?: string;
  /** The name that the server's certificate must have if the user sets none. Without it, the user must set one. */
  readonly certificateName?: string;
  /** The program that was started for it. */
  readonly subprocess?: StartedProgram | null;
  /** Its location, as a URI describes it; absent if no URI can. */
  readonly location?: TargetLocation | null;
  /** Why NBD's own TLS is not possible on it; absent if it is. */
  readonly noTls?: string;
  /** Its URI, where that is not an NBD URI. */
  readonly uri?: string;
  open(signal: AbortSignal): Promise<Transport>;
  /**
   * Destroys a stream that was passed in already open, when connecting fails before the connection has taken ownership
   * of it.
   */
  discard?(): void;
}
