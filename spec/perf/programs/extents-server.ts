// A server that only reports extents, from one reply that it made beforehand and sends in one go, so that a client's
// own time shows. nbdkit sends each extent by itself: 8 bytes at a time. It prints its URI and ends with its stdin.

import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const EXTENT = 4096;
const CONTEXT_ID = 1;
const { extents = 0 } = JSON.parse(process.argv[2] ?? '{}') as { extents?: number };

/** Chunk header, context, and data and holes in turn. The cookie is filled in for each request. */
const statusReply = Buffer.alloc(24 + 8 * extents);
statusReply.writeUInt32BE(0x668e33ef);
statusReply.writeUInt16BE(1, 4); // NBD_REPLY_FLAG_DONE
statusReply.writeUInt16BE(5, 6); // NBD_REPLY_TYPE_BLOCK_STATUS
statusReply.writeUInt32BE(4 + 8 * extents, 16);
statusReply.writeUInt32BE(CONTEXT_ID, 20);
for (let i = 0; i < extents; i++) {
  statusReply.writeUInt32BE(EXTENT, 24 + 8 * i);
  statusReply.writeUInt32BE(i % 2 === 0 ? 0 : 3, 28 + 8 * i);
}

function optionReply(option: number, type: number, data = Buffer.alloc(0)): Buffer {
  const header = Buffer.from('0003e889045565a9000000000000000000000000', 'hex');
  header.writeUInt32BE(option, 8);
  header.writeUInt32BE(type, 12);
  header.writeUInt32BE(data.length, 16);
  return Buffer.concat([header, data]);
}

const ACK = 1;
const UNSUPPORTED = 0x8000_0001;

/** The answer to an option. */
function answer(option: number): Buffer {
  if (option === 8) return optionReply(option, ACK); // STRUCTURED_REPLY
  if (option === 10) {
    const context = Buffer.concat([Buffer.from([0, 0, 0, CONTEXT_ID]), Buffer.from('base:allocation')]);
    return Buffer.concat([optionReply(option, 4, context), optionReply(option, ACK)]); // SET_META_CONTEXT
  }
  if (option !== 7) return optionReply(option, UNSUPPORTED);
  const info = Buffer.alloc(12); // GO: NBD_INFO_EXPORT, the size and the flags
  info.writeBigUInt64BE(BigInt(extents * EXTENT), 2);
  info.writeUInt16BE(3, 10); // has flags, read only
  return Buffer.concat([optionReply(option, 3, info), optionReply(option, ACK)]);
}

function serve(socket: Socket): void {
  let pending = Buffer.alloc(0);
  let stage: 'flags' | 'options' | 'commands' = 'flags';
  const greeting = Buffer.from('NBDMAGICIHAVEOPT\0\x03', 'latin1');
  socket.write(greeting);
  socket.on('error', () => socket.destroy());
  socket.on('data', (chunk: Buffer) => {
    pending = Buffer.concat([pending, chunk]);
    for (;;) {
      const need = stage === 'flags' ? 4 : stage === 'commands' ? 28 : 16;
      if (pending.length < need) return;
      const length = stage === 'options' ? need + pending.readUInt32BE(12) : need;
      if (pending.length < length) return;
      const message = pending.subarray(0, length);
      pending = pending.subarray(length);
      if (stage === 'flags') {
        stage = 'options';
      } else if (stage === 'options') {
        const option = message.readUInt32BE(8);
        socket.write(answer(option));
        if (option === 7) stage = 'commands';
      } else if (message.readUInt16BE(6) === 2) {
        socket.end(); // NBD_CMD_DISC
      } else {
        message.copy(statusReply, 8, 8, 16);
        socket.write(statusReply);
      }
    }
  });
}

const folder = await mkdtemp(join(tmpdir(), 'nbd-sdk-bench-server-'));
const path = join(folder, 'socket');
const server = createServer(serve).listen(path, () => process.stdout.write(`nbd+unix:///?socket=${path}\n`));
process.stdin.resume().once('end', () => {
  server.close();
  void rm(folder, { recursive: true, force: true }).then(() => process.exit());
});
