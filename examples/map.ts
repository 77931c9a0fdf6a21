// Prints which parts of an export contain data, with block status.
import { CONTEXT_BASE_ALLOCATION, extents, NbdConnection, STATE_HOLE, STATE_ZERO } from 'nbd-sdk';
import { MemoryBackend, NbdServer } from 'nbd-sdk/server';

const KIB = 1024;
const TIB = 1024 ** 4;

const backend = new MemoryBackend(TIB);
backend.write(Buffer.alloc(128 * KIB, 'a'), 0);
backend.write(Buffer.alloc(64 * KIB, 'b'), TIB / 2);
await using server = new NbdServer({ exports: { '': backend } });

// A metadata context must be requested while connecting.
await using connection = await NbdConnection.connect(server.connectMemory(), {
  metaContexts: [CONTEXT_BASE_ALLOCATION],
});

// Iterates over the whole export: sends as many block status commands as necessary, and keeps no more than needed.
for await (const { offset, length, flags } of extents(connection)) {
  const words = [];
  if (flags & BigInt(STATE_HOLE)) words.push('hole');
  if (flags & BigInt(STATE_ZERO)) words.push('zero');
  console.log(`${offset} +${length} ${words.join(', ') || 'data'}`);
}

// A single command: the reply of the server for a range, by context, as it was sent.
const reply = await connection.blockStatus64(256 * KIB, 64 * KIB);
for (const { offset, length, flags } of reply.get(CONTEXT_BASE_ALLOCATION) ?? []) {
  console.log(`reply: ${offset} +${length} ${flags}`);
}
