// The first bytes: which of the three handshakes the server uses, and the flags that both sides agree on.

import { Buffer } from '../../util/buffer.js';
import { NbdConnectionError, NbdProtocolError } from '../../errors.js';
import { fromHalves } from '../../util/u64.js';
import { get16, get32, put32 } from '../../util/bytes.js';
import { HANDSHAKE_FLAG_FIXED_NEWSTYLE, HANDSHAKE_FLAG_NO_ZEROES, TLS_REQUIRE } from '../client-constants.js';
import * as c from '../constants.js';
import { maskFlags } from '../export-info.js';
import { printable } from '../names.js';
import type { Handshake } from './effects.js';
import type { HandshakeSession } from './session.js';
import { quoted } from '../../util/visible.js';

/** How much of a greeting a message contains: a line. */
const MAX_GREETING = 100;

const noTls = (why: string): NbdConnectionError =>
  new NbdConnectionError(`TLS is required, but ${why}`, { code: 'ENOTSUP' });

/** Reads the greeting and answers it. After an oldstyle greeting the export is open already. */
export function* greet(session: HandshakeSession): Handshake<void> {
  const magic = yield 8;
  if (get32(magic, 0) !== c.NBD_MAGIC_HIGH || get32(magic, 4) !== c.NBD_MAGIC_LOW) {
    throw notNbd(magic);
  }
  const version = yield 8;
  const [high, low] = [get32(version, 0), get32(version, 4)];
  if (high === c.NBD_OLDSTYLE_MAGIC_HIGH && low === c.NBD_OLDSTYLE_MAGIC_LOW) {
    yield* oldstyle(session);
  } else if (high === c.NBD_IHAVEOPT_HIGH && low === c.NBD_IHAVEOPT_LOW) {
    yield* newstyle(session);
  } else {
    throw new NbdProtocolError(`unknown handshake version 0x${version.toString('hex')}`, { code: 'EPROTO' });
  }
}

// Whatever follows the first bytes is known to the caller that runs the handshake.
const greetings = new WeakMap<Error, Buffer>();

/** The bytes of a peer that is not an NBD server. */
export const greetingOf = (error: unknown): Buffer | undefined =>
  error instanceof NbdProtocolError ? greetings.get(error) : undefined;

/** SSH, SMTP, FTP and others greet with a line of text, which shows the user what listens there. */
export function notNbd(bytes: Buffer): NbdProtocolError {
  const hexadecimal = `0x${bytes.toString('hex', 0, 8)}`;
  const isText = bytes.subarray(0, 8).every((byte) => (byte >= 0x20 && byte < 0x7f) || byte === 0x0d || byte === 0x0a);
  const text = isText ? `, "${printable(bytes, MAX_GREETING)}"` : '';
  const error = new NbdProtocolError(`the peer is not an NBD server: it greets with ${hexadecimal}${text}`, {
    code: 'EPROTO',
  });
  greetings.set(error, bytes);
  return error;
}

function* newstyle(session: HandshakeSession): Handshake<void> {
  const offered = get16(yield 2, 0);
  const { handshakeFlags, tls } = session.request;
  const fixed = (offered & handshakeFlags & HANDSHAKE_FLAG_FIXED_NEWSTYLE) !== 0;
  session.noZeroes = (offered & handshakeFlags & HANDSHAKE_FLAG_NO_ZEROES) !== 0;
  session.protocol = fixed ? 'newstyle-fixed' : 'newstyle';
  if (!fixed && tls === TLS_REQUIRE) throw noTls('the server does not speak the fixed newstyle handshake');
  const flags = Buffer.alloc(4);
  put32(flags, 0, (fixed ? c.NBD_FLAG_C_FIXED_NEWSTYLE : 0) | (session.noZeroes ? c.NBD_FLAG_C_NO_ZEROES : 0));
  yield flags;
}

function* oldstyle(session: HandshakeSession): Handshake<void> {
  session.protocol = 'oldstyle';
  const { exportName, tls } = session.request;
  if (tls === TLS_REQUIRE) throw noTls('the server uses the oldstyle handshake');
  const size = yield 8;
  const flags = yield 4;
  yield 124;
  if (get16(flags, 0) !== 0) {
    throw new NbdProtocolError(`global flags 0x${get16(flags, 0).toString(16)} in an oldstyle greeting`, {
      code: 'EPROTO',
    });
  }
  if (exportName !== '') {
    // An oldstyle server has one export without a name; using it in place of the named one would read another disk.
    throw new NbdConnectionError(
      `the server uses the oldstyle handshake, which cannot select an export by name (${quoted(session.shownName)})`,
      { code: 'ENOTSUP', exportName: session.shownName },
    );
  }
  if (session.request.metaContext) session.negotiated.contexts = new Map();
  session.info = {
    size: fromHalves(get32(size, 0), get32(size, 4)),
    flags: maskFlags(checkedFlags(get16(flags, 2)), session.negotiated),
    blockSizes: null,
    canonicalName: null,
    description: null,
  };
}

/** Transmission flags of zero would mean that the server reports nothing about its export. */
export function checkedFlags(flags: number): number {
  if (flags !== 0) return flags;
  throw new NbdProtocolError('the server sent no transmission flags (HAS_FLAGS is not set)', {
    code: 'EPROTO',
  });
}
