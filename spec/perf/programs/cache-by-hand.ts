// A prefetch with 64 requests of 4 MiB in flight from the beginning: what `nbd cache` is compared with.

import { NbdConnection } from 'nbd-sdk';

const [, , uri = ''] = process.argv;
const LENGTH = 4 * 1024 * 1024;
const connection = await NbdConnection.connect(uri);
const size = Number(connection.getSize());
let next = 0;
const lane = async (): Promise<void> => {
  while (next < size) {
    const offset = next;
    next += LENGTH;
    await connection.cache(Math.min(LENGTH, size - offset), offset);
  }
};
await Promise.all(Array.from({ length: 64 }, lane));
await connection.shutdown();
