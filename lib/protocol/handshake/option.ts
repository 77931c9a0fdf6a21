// Options and their replies as bytes: the frame that every option of the newstyle handshake shares.

import * as c from '../constants.js';

/** IHAVEOPT, the option, the length and the data. */
export function encodeOption(option: number, data: Uint8Array = new Uint8Array(0)): Buffer {
  const bytes = Buffer.alloc(16 + data.length);
  bytes.writeUInt32BE(c.NBD_IHAVEOPT_HIGH, 0);
  bytes.writeUInt32BE(c.NBD_IHAVEOPT_LOW, 4);
  bytes.writeUInt32BE(option, 8);
  bytes.writeUInt32BE(data.length, 12);
  bytes.set(data, 16);
  return bytes;
}

/** The reply magic, the option it answers, the reply type, the length and the data. */
export function encodeOptionReply(option: number, type: number, data: Uint8Array = new Uint8Array(0)): Buffer {
  const bytes = Buffer.alloc(20 + data.length);
  bytes.writeUInt32BE(c.NBD_REP_MAGIC_HIGH, 0);
  bytes.writeUInt32BE(c.NBD_REP_MAGIC_LOW, 4);
  bytes.writeUInt32BE(option, 8);
  bytes.writeUInt32BE(type, 12);
  bytes.writeUInt32BE(data.length, 16);
  bytes.set(data, 20);
  return bytes;
}
