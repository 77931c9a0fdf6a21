// @vates/nbd-client, fetched by the runner: reads only, TCP only, and blocks of one size at multiples of it.

import { Meter, Offsets, readWork, Verifier } from '../programs/work.js';

interface VatesClient {
  connect(): Promise<void>;
  readBlock(index: number, size?: number): Promise<Buffer>;
  disconnect(): Promise<void>;
}
type VatesClass = new (server: object, options?: object) => VatesClient;

const args = process.argv.slice(2);
const work = readWork(args);
const entry = args.find((arg) => arg.startsWith('entry='))?.slice('entry='.length) ?? '';
const { default: Client } = (await import(entry)) as { default: VatesClass };
const { hostname, port } = new URL(work.uri);
const client = new Client({ address: hostname, port: Number(port), exportname: '' });
await client.connect();

const offsets = new Offsets(work);
const verifier = new Verifier(work);
const meter = new Meter(work);

async function caller(): Promise<void> {
  while (!meter.isStopped) {
    const offset = offsets.next();
    const begun = meter.begin();
    const buffer = await client.readBlock(offset / work.size, work.size);
    meter.end(begun);
    verifier.check(buffer, offset);
  }
}

meter.start();
await Promise.all(Array.from({ length: work.depth }, caller));
await client.disconnect();
meter.report(verifier.verified);
// It leaves timers of its reads behind.
process.exit();
