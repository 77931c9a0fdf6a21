// What the specs of commands share: a client of one backend, and numbers of the protocol.

import { type NbdBackend, type NbdExportOptions } from '../../lib/server/index.js';
import { type HandshakeOptions, newServer, RawClient } from '../support/raw-client.js';

export const SIZE = 1 << 20;
export const PAGE = 65536;
export const [EPERM, EIO, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP] = [1, 5, 22, 28, 75, 95];
export const [FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN] = [1, 2, 4, 8, 16, 32];

export const open = (backend: NbdBackend | NbdExportOptions, options: HandshakeOptions = {}): Promise<RawClient> =>
  RawClient.of(newServer({ exports: { '': backend } })).handshake(options);

/** A backend of 1 MiB that is what the test makes it. */
export const made = (methods: Partial<NbdBackend>): NbdBackend => ({
  size: SIZE,
  read: (buffer) => void buffer.fill(0),
  ...methods,
});
