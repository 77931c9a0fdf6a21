// Prints which parts of an export hold data: block status over the whole of it.
import { CONTEXT_BASE_ALLOCATION, NbdConnection, STATE_HOLE, STATE_ZERO } from 'nbd-sdk';
import { MemoryBackend, NbdServer } from 'nbd-sdk/server';

const KIB = 1024;
const TIB = 1024 ** 4;
// One command reaches 4 GiB - 1 at the most, unless extended headers were negotiated.
const MOST = 2 ** 31;

const backend = new MemoryBackend(TIB);
backend.write(Buffer.alloc(128 * KIB, 'a'), 0);
backend.write(Buffer.alloc(64 * KIB, 'b'), TIB / 2);
await using server = new NbdServer({ exports: { '': backend } });

// A metadata context has to be asked for while connecting.
await using connection = await NbdConnection.connect(server.connectMemory(), {
  metaContexts: [CONTEXT_BASE_ALLOCATION],
});
if (!connection.canMetaContext(CONTEXT_BASE_ALLOCATION)) throw new Error('this server cannot tell');

const size = connection.getSize();
let run = { offset: 0n, length: 0n, flags: 0n };
let offset = 0n;
while (offset < size) {
  const count = size - offset < MOST ? size - offset : MOST;
  // Servers may tell less than they were asked, never nothing: go on from where the answer ends.
  const extents = (await connection.blockStatus64(count, offset)).get(CONTEXT_BASE_ALLOCATION);
  for (const extent of extents ?? []) {
    offset = extent.offset + extent.length;
    if (extent.flags === run.flags) {
      run.length += extent.length;
    } else {
      report(run);
      run = { ...extent };
    }
  }
}
report(run);

function report({ offset, length, flags }: typeof run): void {
  if (length === 0n) return;
  const words = [];
  if (flags & BigInt(STATE_HOLE)) words.push('hole');
  if (flags & BigInt(STATE_ZERO)) words.push('zero');
  console.log(`${offset} +${length} ${words.join(', ') || 'data'}`);
}
