// Run as a process of its own: ends pools in every way and at every moment, and prints what each has left behind. It
// must end by itself.

import { setTimeout as sleep } from 'node:timers/promises';

import { NbdPool, type NbdPoolOptions, SHUTDOWN_ABANDON_PENDING } from '../../../lib/index.js';
import { MemoryBackend } from '../../../lib/server/index.js';
import { Place, SIZE } from '../place.js';

const [scenario = '', path = ''] = process.argv.slice(2);

const codeOf = (error: unknown): string => (error as { code?: string } | null)?.code ?? String(error);
const rejected = (promise: Promise<unknown>): Promise<string> => promise.then(() => 'resolved', codeOf);

const connect = (place: Place, options: NbdPoolOptions = {}): Promise<NbdPool> =>
  NbdPool.connect(place.target, { reconnect: { minDelay: 1, maxDelay: 20 }, closeTimeout: 200, ...options });

async function away(place: Place, pool: NbdPool): Promise<void> {
  const gone = new Promise((resolve) => pool.once('away', resolve));
  await place.stop();
  await gone;
}

type Scenario = (place: Place) => Promise<string>;

const SCENARIOS: Readonly<Record<string, Scenario>> = {
  close: async (place) => {
    const pool = await connect(place);
    await pool.pread(512, 0);
    pool.close();
    pool.close();
    return rejected(pool.pread(512, 0));
  },
  'close with commands in flight and waiting': async (place) => {
    place.server.faults.push({ command: 'read', stall: true });
    const pool = await connect(place, { maxInFlight: 2 });
    const reads = Array.from({ length: 5 }, () => rejected(pool.pread(512, 0)));
    await sleep(20);
    pool.close();
    return [...new Set(await Promise.all(reads))].join();
  },
  'close while another connection is being made': async (place) => {
    const pool = await connect(place);
    const reads = Array.from({ length: 5 }, () => rejected(pool.pread(512, 0)));
    pool.close();
    return [...new Set(await Promise.all(reads))].join();
  },
  'close while it is away': async (place) => {
    const pool = await connect(place);
    await away(place, pool);
    const reads = [rejected(pool.pread(512, 0)), rejected(pool.pread(512, 0, 0, new AbortController().signal))];
    await sleep(20);
    pool.close();
    return (await Promise.all(reads)).join();
  },
  'close while a command waits to be tried again': async (place) => {
    place.server.faults.push({ command: 'read', error: 'EIO' });
    const pool = await connect(place, { retry: { delay: 60_000 } });
    const read = rejected(pool.pread(512, 0));
    await new Promise((resolve) => pool.once('retry', resolve));
    pool.close();
    return read;
  },
  'close while writes are written again': async (place) => {
    const pool = await connect(place, { rewrite: ({ length }) => sleep(30).then(() => Buffer.alloc(Number(length))) });
    await pool.pwrite(Buffer.alloc(512), 0);
    place.cut();
    const read = rejected(pool.pread(512, 0));
    await sleep(30);
    pool.close();
    const code = await read;
    await sleep(40);
    return code;
  },
  shutdown: async (place) => {
    await using pool = await connect(place);
    await Promise.all(Array.from({ length: 50 }, () => pool.pread(512, 0)));
    return 'read';
  },
  'shutdown lets settle what was called': async (place) => {
    const pool = await connect(place, { maxInFlight: 1, closeTimeout: 20_000 });
    const reads = Array.from({ length: 20 }, () => rejected(pool.pread(512, 0)));
    await pool.shutdown();
    return [...new Set(await Promise.all(reads))].join();
  },
  'shutdown that abandons what waits': async (place) => {
    place.server.faults.push({ command: 'read', nth: 1, delay: 30 });
    const pool = await connect(place, { maxInFlight: 1, connections: 1 });
    const reads = Array.from({ length: 3 }, () => rejected(pool.pread(512, 0)));
    await sleep(10);
    await pool.shutdown(SHUTDOWN_ABANDON_PENDING);
    return (await Promise.all(reads)).join();
  },
  'shutdown while it is away': async (place) => {
    const pool = await connect(place, { closeTimeout: 50 });
    await away(place, pool);
    const read = rejected(pool.pread(512, 0));
    await pool.shutdown();
    return read;
  },
  'shutdown of a silent server': async (place) => {
    place.server.faults.push({ command: 'read', stall: true });
    const pool = await connect(place, { closeTimeout: 50 });
    const read = rejected(pool.pread(512, 0));
    await pool.shutdown();
    return read;
  },
  'no way back': async (place) => {
    const pool = await connect(place, { reconnect: false });
    place.cut();
    return rejected(pool.pread(512, 0));
  },
  'the time is over': async (place) => {
    const pool = await connect(place, { reconnect: { within: 50, minDelay: 1 } });
    await away(place, pool);
    return rejected(pool.pread(512, 0));
  },
  'another export': async (place) => {
    const pool = await connect(place);
    await away(place, pool);
    await place.start({}, new MemoryBackend(SIZE * 2));
    return rejected(pool.pread(512, 0));
  },
  'an abort of connect': async (place) => {
    await place.stop();
    const signal = AbortSignal.timeout(30);
    return rejected(connect(place, { waitFor: Infinity, signal })).then(() => String(signal.aborted));
  },
};

/** Sockets and timers. */
const resources = (): string =>
  process
    .getActiveResourcesInfo()
    .filter((name) => /Pipe|TCP|Timeout|GetAddr/.test(name))
    .sort()
    .join();

async function run(name: string, act: Scenario): Promise<void> {
  let outcome: string;
  {
    await using place = await Place.open();
    outcome = await act(place);
    await sleep(5);
  }
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
  const left = resources();
  console.log(`${name}: ${outcome}${left === before ? '' : `, left ${left} (before ${before})`}`);
}

// The first use of a standard stream opens it.
void [process.stdout, process.stderr];
const before = resources();
if (scenario === 'unref') {
  const pool = await NbdPool.connect({ path });
  await pool.unref().pread(512, 0);
  console.log('open');
} else if (scenario === 'unref away') {
  const place = await Place.open();
  const pool = await connect(place, { reconnect: { within: 60_000, maxDelay: 60_000, minDelay: 60_000 } });
  await away(place, pool.unref());
  // The proxy is not the pool's.
  place.unref();
  console.log('open');
} else {
  for (const [name, act] of Object.entries(SCENARIOS)) await run(name, act);
}
