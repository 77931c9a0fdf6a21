// Prints which parts of an export hold data: block status over the whole of it.
import { CONTEXT_BASE_ALLOCATION, extents, NbdConnection, STATE_HOLE, STATE_ZERO } from 'nbd-sdk';
import { MemoryBackend, NbdServer } from 'nbd-sdk/server';

const KIB = 1024;
const TIB = 1024 ** 4;

const backend = new MemoryBackend(TIB);
backend.write(Buffer.alloc(128 * KIB, 'a'), 0);
backend.write(Buffer.alloc(64 * KIB, 'b'), TIB / 2);
await using server = new NbdServer({ exports: { '': backend } });

// A metadata context has to be asked for while connecting.
await using connection = await NbdConnection.connect(server.connectMemory(), {
  metaContexts: [CONTEXT_BASE_ALLOCATION],
});

// As many block status commands as it takes, and no more in memory than one reply.
for await (const { offset, length, flags } of extents(connection)) {
  const words = [];
  if (flags & BigInt(STATE_HOLE)) words.push('hole');
  if (flags & BigInt(STATE_ZERO)) words.push('zero');
  console.log(`${offset} +${length} ${words.join(', ') || 'data'}`);
}

// One command: what the server tells about a range, by context, as it tells it.
const told = await connection.blockStatus64(256 * KIB, 64 * KIB);
for (const { offset, length, flags } of told.get(CONTEXT_BASE_ALLOCATION) ?? []) {
  console.log(`told: ${offset} +${length} ${flags}`);
}
