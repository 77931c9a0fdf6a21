// Serves an export over HTTP with Range; a client that goes away ends the reads of its request.
import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { pipeline } from 'node:stream/promises';
import { createReadStream, NbdConnection } from 'nbd-sdk';
import { NbdServer, PatternBackend } from 'nbd-sdk/server';

const MIB = 1024 * 1024;
await using nbd = new NbdServer({ exports: { '': new PatternBackend(256 * MIB) } });
await using connection = await NbdConnection.connect(nbd.connectMemory());
const size = Number(connection.getSize());

/** The first byte and the one after the last; null if the export has none of them. */
function rangeOf(header = 'bytes=0-'): [first: number, end: number] | null {
  const [, from = '', to = ''] = /^bytes=(\d*)-(\d*)$/.exec(header) ?? [];
  if (from === '' && to === '') return null;
  const first = from === '' ? Math.max(0, size - Number(to)) : Number(from);
  const end = from === '' || to === '' ? size : Math.min(size, Number(to) + 1);
  return first < end ? [first, end] : null;
}

async function send(response: ServerResponse, header: string | undefined): Promise<void> {
  const range = rangeOf(header);
  if (range === null) {
    response.writeHead(416, { 'content-range': `bytes */${size}` }).end();
    return;
  }
  const [first, end] = range;
  response.writeHead(header === undefined ? 200 : 206, {
    'accept-ranges': 'bytes',
    'content-length': end - first,
    ...(header !== undefined && { 'content-range': `bytes ${first}-${end - 1}/${size}` }),
  });
  // When the response is closed, pipeline() destroys the stream, which aborts its reads.
  await pipeline(createReadStream(connection, { offset: first, length: end - first }), response);
}

const http = createServer(({ headers }, response) => {
  send(response, headers.range).catch((error: unknown) => console.log(`ended early: ${(error as Error).message}`));
}).listen(0, '127.0.0.1');
await once(http, 'listening');
const url = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;

for (const range of ['bytes=512-527', 'bytes=-8', 'bytes=999999999-']) {
  const response = await fetch(url, { headers: { range } });
  const bytes = Buffer.from(await response.arrayBuffer());
  console.log(`${range}: ${response.status} ${response.headers.get('content-range')} ${bytes.toString('hex')}`);
}

const controller = new AbortController();
const response = await fetch(url, { signal: controller.signal });
await response.body?.getReader().read();
controller.abort();
while (connection.aioInFlight() > 0) await new Promise((resolve) => setTimeout(resolve, 10));
console.log(`read less than all of it: ${nbd.statistics.bytesSent < size}`);
http.close();
