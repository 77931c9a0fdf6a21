// The servers of tls-x509.spec.ts, each started alike, with TLS or without.

import { type RealServer, type ServerTls, startNbdkit, startNbdServer, startQemuNbd } from '../support/real-servers.js';

export type Transport = 'unix' | 'tcp';

export interface Kind {
  readonly name: string;
  /** The export's name. */
  readonly export: string;
  /** Whether it demands a certificate of every client. */
  readonly alwaysVerifies?: boolean;
  /** Whether it refuses to serve with a certificate that has expired. */
  readonly checksItself?: boolean;
  start(transport: Transport, tls?: ServerTls): Promise<RealServer>;
}

const withTls = (transport: Transport, tls?: ServerTls): { transport: Transport; tls?: ServerTls } =>
  tls === undefined ? { transport } : { transport, tls };

export const KINDS: readonly Kind[] = [
  {
    name: 'nbdkit',
    export: '',
    start: (transport, tls) => startNbdkit(withTls(transport, tls)),
  },
  {
    name: 'qemu-nbd',
    export: '',
    checksItself: true,
    start: (transport, tls) => startQemuNbd(withTls(transport, tls)),
  },
  {
    name: 'nbd-server',
    export: 'export',
    alwaysVerifies: true,
    start: (transport, tls) => startNbdServer(withTls(transport, tls)),
  },
];
