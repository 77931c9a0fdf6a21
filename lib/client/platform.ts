// What a connection needs from where it runs: how targets are opened, TLS, and memory for results. `client/node.ts` has
// Node's, `web/` that of browsers; the rest of client/ is the same in both.

import type { Transport } from '../transport/transport.js';
import type { Target } from './connect/target.js';
import type { NbdConnectionOptions, Settings } from './options/options.js';

/** Memory for the results of one connection's reads. */
export interface ResultAllocator {
  /** Memory that a read will overwrite. */
  readonly allocate: (length: number) => Uint8Array;
  /** The same, zeroed. */
  readonly allocateZeroed: (length: number) => Uint8Array;
}

/** The TLS material of one connection. */
export interface TlsStarter {
  /** Throws if the material cannot be used, before anything is opened. */
  check(): void;
  /** Takes ownership of the transport at once, and resolves when the session is verified. */
  start(raw: Transport, target: Target): Promise<Transport>;
}

/** The kinds of targets. Each returns one, or throws an NbdStrictError: `ENOTSUP` if this platform has none of them. */
export interface TargetMakers {
  uri(method: string, text: string, settings: Settings): Target;
  tcp(method: string, host: unknown, port: unknown): Target;
  unix(method: string, path: unknown, settings: Settings): Target;
  vsock(method: string, cid: unknown, port: unknown, settings: Settings): Target;
  command(method: string, argv: unknown, settings: Settings): Target;
  activation(method: string, argv: unknown, settings: Settings): Target;
  /** A stream that is already open. */
  stream(method: string, stream: unknown, settings: Settings): Target;
  /** An object that describes a target, or a stream. */
  named(method: string, target: unknown, settings: Settings): Target;
  /** Whether an object names a place that can be connected to again, rather than a stream or a program. */
  isPlace(target: unknown): boolean;
}

export interface ClientPlatform {
  readonly supportsTls: boolean;
  readonly supportsVsock: boolean;
  /** Options that have no meaning here: they are refused with `ENOTSUP`. */
  readonly unsupported: ReadonlySet<keyof NbdConnectionOptions>;
  readonly targets: TargetMakers;
  /** The URI of a connection; throws an NbdStrictError `EINVAL` if it has none. */
  uriOf(method: string, target: Target | null, settings: Settings, isEncrypted: boolean | undefined): string;
  /** Null if there is no TLS. */
  loadTls(settings: Settings): Promise<TlsStarter | null>;
  makeMemory(): ResultAllocator;
}
