// A map of an export with one block status command at a time: what `nbd map` is compared with.

import { NbdConnection } from 'nbd-sdk';

const [, , uri = ''] = process.argv;
const connection = await NbdConnection.connect(uri, { metaContexts: ['base:allocation'] });
const size = connection.getSize();
const most = 2n ** 32n - 512n;
for (let offset = 0n; offset < size;) {
  const count = size - offset < most ? size - offset : most;
  const found = await connection.blockStatus64(count, offset);
  const entries = found.get('base:allocation')?.entries ?? new BigUint64Array(0);
  let reached = offset;
  for (let index = 0; index < entries.length; index += 2) reached += entries[index] ?? 0n;
  if (reached === offset) throw new Error('no extent');
  offset = reached < size ? reached : size;
}
await connection.shutdown();
