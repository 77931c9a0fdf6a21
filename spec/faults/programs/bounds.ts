// Run as a process of its own, so that only the client's memory is measured: connects to a server of the spec, runs
// a scenario, and prints what it cost. Needs --expose-gc.

import { existsSync, readdirSync } from 'node:fs';
import { Duplex } from 'node:stream';

import { createReadStream, extents, NbdConnection, type NbdConnectionOptions } from '../../../lib/index.js';
import { content } from '../../support/golden.js';

const [scenario = '', path = '', ...more] = process.argv.slice(2);
const MIB = 2 ** 20;

const collect = (): void => (globalThis as unknown as { gc: () => void }).gc();
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const connect = (options: NbdConnectionOptions = {}, to = path): Promise<NbdConnection> =>
  NbdConnection.connect({ path: to }, { requestExtendedHeaders: false, ...options });
const codeOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'ok',
    (error: unknown) => (error as { code?: string }).code ?? String(error),
  );
const settled = async (codes: readonly Promise<string>[]): Promise<string> =>
  [...new Set(await Promise.all(codes))].sort().join();

async function repeat(count: number, once: (i: number) => Promise<unknown>): Promise<string> {
  const codes = new Set<string>();
  for (let i = 0; i < count; i++) codes.add(await codeOf(once(i)));
  return [...codes].sort().join();
}

/** A stream whose bytes come one by one. */
function trickle(bytes: Buffer): Duplex {
  const stream = new Duplex({
    read: () => undefined,
    write: (_chunk, _encoding, done) => {
      done();
    },
  });
  for (let at = 0; at < bytes.length; at++) stream.push(bytes.subarray(at, at + 1));
  return stream;
}

const SCENARIOS: Readonly<Record<string, () => Promise<unknown>>> = {
  names: async () => {
    const connection = await connect({ optMode: true });
    const list = await connection.optList();
    collect();
    return list.length;
  },
  infos: async () => (await connect()).connectionState(),
  extents: async () => {
    const connection = await connect({ metaContexts: ['base:allocation'] });
    const map = await connection.blockStatus(2 ** 31 - 1, 0);
    return map.get('base:allocation')?.length;
  },
  chunks: async () => {
    const length = MIB / 8;
    return (await (await connect()).pread(length, 0)).equals(content(0, length));
  },
  segments: async () => {
    // The whole conversation of an oldstyle server, the answer included, is there before the request.
    const length = MIB / 2;
    const header = Buffer.alloc(152);
    header.write('NBDMAGIC');
    header.writeBigUInt64BE(0x420281861253n, 8);
    header.writeBigUInt64BE(BigInt(length), 16);
    header.writeUInt16BE(1, 26);
    const stream = trickle(header);
    const connection = await NbdConnection.connect(stream);
    const read = connection.pread(length, 0);
    await turn();
    const reply = Buffer.alloc(16);
    reply.writeUInt32BE(0x67446698);
    reply.writeBigUInt64BE(1n, 8);
    for (const byte of Buffer.concat([reply, content(0, length)])) stream.push(Buffer.of(byte));
    return (await read).equals(content(0, length));
  },
  writes: async () => {
    const connection = await connect();
    const bytes = Buffer.alloc(MIB);
    const all = settled(Array.from({ length: 1000 }, (_, i) => codeOf(connection.pwrite(bytes, i * MIB))));
    for (let i = 0; i < 50; i++) await turn();
    collect();
    const held = process.memoryUsage().arrayBuffers;
    connection.close();
    return { codes: await all, held: Math.round(held / MIB) };
  },
  aborts: async () => {
    const connection = await connect({ maxInFlight: 8 });
    const before = connection.statsChunksSent();
    const codes: Promise<string>[] = [];
    for (let i = 0; i < 1000; i++) {
      const controller = new AbortController();
      codes.push(codeOf(connection.pread(MIB, i * MIB, 0, controller.signal)));
      await turn();
      controller.abort({ code: 'mine' });
    }
    const result = { codes: await settled(codes), sent: Number(connection.statsChunksSent() - before) };
    collect();
    const held = process.memoryUsage().arrayBuffers;
    connection.close();
    return { ...result, held: Math.round(held / MIB) };
  },
  stream: async () => {
    const connection = await connect();
    let bytes = 0;
    for await (const chunk of createReadStream(connection)) {
      bytes += (chunk as Buffer).length;
      await turn();
    }
    await connection.shutdown();
    return bytes;
  },
  map: async () => {
    const connection = await connect({ metaContexts: ['base:allocation'] });
    const controller = new AbortController();
    let found = 0;
    const going = (async () => {
      for await (const _extent of extents(connection, { signal: controller.signal })) {
        if (++found === 200_000) controller.abort({ code: 'mine' });
      }
    })();
    const code = await codeOf(going);
    connection.close();
    return { code, found: found >= 200_000 };
  },
  connects: () =>
    repeat(1000, async (i) => {
      const connection = await connect();
      await connection.pread(512, 0);
      if (i % 2 === 0) connection.close();
      else await connection.shutdown();
    }),
  failures: async () => {
    const codes: string[] = [];
    for (const each of [path, ...more]) codes.push(await repeat(250, () => connect({}, each)));
    return codes;
  },
  forgotten: async () => {
    for (let i = 0; i < 50; i++) {
      const connection = await connect();
      connection.unref();
      void connection.pread(512, 0);
      connection.aioCache(512, 0);
    }
    for (let i = 0; i < 20; i++) {
      collect();
      await turn();
    }
    return 'alive';
  },
};

/** The longest that one turn of the event loop took of the CPU, and the most memory there was. */
class Watch {
  readonly #start = process.memoryUsage.rss();
  #peak = 0;
  #longest = 0;
  readonly #timer: NodeJS.Timeout;

  constructor() {
    let last = process.cpuUsage();
    this.#timer = setInterval(() => {
      const { user, system } = process.cpuUsage(last);
      last = process.cpuUsage();
      this.#longest = Math.max(this.#longest, (user + system) / 1000);
      this.#peak = Math.max(this.#peak, process.memoryUsage.rss());
    }, 5);
  }

  stop(): { readonly grown: number; readonly turn: number } {
    clearInterval(this.#timer);
    this.#peak = Math.max(this.#peak, process.memoryUsage.rss());
    return { grown: Math.round((this.#peak - this.#start) / MIB), turn: Math.round(this.#longest) };
  }
}

const descriptors = (): number => (existsSync('/proc/self/fd') ? readdirSync('/proc/self/fd').length : 0);

const run = SCENARIOS[scenario] ?? (() => Promise.reject(new Error(`no scenario ${scenario}`)));
const warm = scenario === 'connects' || scenario === 'failures';
// What the first connections load and compile is not what each of them leaves behind.
if (warm) await repeat(100, () => connect().then((connection) => connection.shutdown()));
collect();
const opened = descriptors();
const watch = new Watch();
const result = await run();
if (warm) collect();
console.log(JSON.stringify({ result, ...watch.stop(), descriptors: descriptors() - opened }));
if (scenario === 'infos' || scenario === 'names' || scenario === 'chunks' || scenario === 'extents') process.exit(0);
