// Writes again what a lost connection may have undone, with bytes that the user supplies, then flushes.

import type { NbdConnection } from '../../client/node.js';
import { type ByteRange, NbdStrictError } from '../../errors.js';
import { SIZE_PAYLOAD } from '../../protocol/client-constants.js';
import { toBytes } from '../../protocol/strict.js';

/** Bytes that are asked for at a time. */
const PIECE = 4n * 1024n * 1024n;

/** Writes every range again, in pieces, and flushes; rejects at the first failure. */
export async function restore(
  connection: NbdConnection,
  ranges: readonly ByteRange[],
  rewrite: (range: ByteRange) => Uint8Array | Promise<Uint8Array>,
): Promise<void> {
  const longest = BigInt(connection.getBlockSize(SIZE_PAYLOAD));
  const most = longest < PIECE ? longest : PIECE;
  for (const { offset, length } of ranges) {
    const end = offset + length;
    for (let at = offset; at < end; at += most) {
      const piece = { offset: at, length: end - at < most ? end - at : most };
      const bytes = toBytes(await rewrite(piece), 'rewrite');
      const supplied = bytes.byteLength;
      if (BigInt(supplied) !== piece.length) {
        throw new NbdStrictError(
          `rewrite: must supply the ${piece.length} bytes at offset ${piece.offset}, not ${supplied}`,
          { code: 'EINVAL', syscall: 'rewrite', offset: piece.offset, count: piece.length },
        );
      }
      await connection.pwrite(bytes, at);
    }
  }
  if (connection.canFlush()) await connection.flush();
}
