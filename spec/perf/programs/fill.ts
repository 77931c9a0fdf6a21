// Fills an export with the pattern: every aligned 8 bytes hold their own offset. Arguments: the URI and the bytes.

import { NbdConnection } from 'nbd-sdk';

const [uri = '', image = '0'] = process.argv.slice(2);
const connection = await NbdConnection.connect(uri);
const buffer = Buffer.alloc(1024 * 1024);
for (let offset = 0; offset < Number(image); offset += buffer.length) {
  for (let at = 0; at < buffer.length; at += 8) buffer.writeUInt32BE(offset + at, at + 4);
  await connection.pwrite(buffer, offset);
}
await connection.shutdown();
