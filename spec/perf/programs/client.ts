// The client under test: one connection, or a pool, and `depth` callers that each wait for one command at a time.

// By its name in the namespace: an earlier build that is compared against may have no pool.
import * as sdk from 'nbd-sdk';
import { NbdConnection, type NbdConnectionOptions, type NbdExport } from 'nbd-sdk';
import { Meter, Offsets, readWork, Verifier } from './work.js';

const work = readWork(process.argv.slice(2));
const { size } = work;
const offsets = new Offsets(work);
const verifier = new Verifier(work);
const meter = new Meter(work);

const options: NbdConnectionOptions = {
  maxInFlight: work.window,
  preadInitialize: work.initialize,
  ...(work.simple ? { requestStructuredReplies: false } : {}),
  ...(work.uri.startsWith('nbds') ? { uriAllowLocalFile: true } : {}),
  ...(work.op.startsWith('blockStatus') ? { metaContexts: ['base:allocation'] } : {}),
};

async function pread(connection: NbdExport): Promise<void> {
  while (!meter.isStopped) {
    const offset = offsets.next();
    const begun = meter.begin();
    const buffer = await connection.pread(size, offset);
    meter.end(begun);
    verifier.check(buffer, offset);
  }
}

async function preadInto(connection: NbdExport): Promise<void> {
  const buffer = Buffer.alloc(size);
  while (!meter.isStopped) {
    const offset = offsets.next();
    const begun = meter.begin();
    await connection.preadInto(buffer, offset);
    meter.end(begun);
    verifier.check(buffer, offset);
  }
}

/** Of each caller the last offset written and the bytes, to be read back. */
const written: { offset: number; buffer: Buffer }[] = [];

async function pwrite(connection: NbdExport, caller: number): Promise<void> {
  const buffer = Buffer.alloc(size, 97 + (caller % 26));
  const last = { offset: -1, buffer };
  const mine = new Offsets(work, caller);
  written.push(last);
  while (!meter.isStopped) {
    const offset = mine.next();
    buffer.writeUInt32BE(offset, 4);
    const begun = meter.begin();
    await connection.pwrite(buffer, offset);
    meter.end(begun);
    last.offset = offset;
  }
}

async function cache(connection: NbdExport): Promise<void> {
  while (!meter.isStopped) {
    const begun = meter.begin();
    await connection.cache(size, offsets.next());
    meter.end(begun);
  }
}

/** The raw form: each completion retires its command and begins the next. */
function aioCache(connection: NbdExport): Promise<void> {
  if (!(connection instanceof NbdConnection)) throw new Error('a pool has no raw commands');
  return new Promise((resolve, reject) => {
    const next = (): void => {
      if (meter.isStopped) {
        resolve();
        return;
      }
      const begun = meter.begin();
      connection.aioCache(size, offsets.next(), (error) => {
        if (error === null) {
          meter.end(begun);
          next();
        } else {
          reject(error);
        }
        return true;
      });
    };
    next();
  });
}

let mapped = 0;

async function blockStatus(connection: NbdExport): Promise<void> {
  while (!meter.isStopped) {
    const begun = meter.begin();
    const map = await connection.blockStatus(work.image, 0);
    meter.end(begun);
    const entries = map.get('base:allocation')?.entries ?? new Uint32Array();
    if (entries.length !== 2 * work.extents) throw new Error(`${entries.length / 2} extents, not ${work.extents}`);
    for (let i = 0; i + 3 < entries.length; i += 2) {
      if (entries[i] !== size || entries[i + 1] === entries[i + 3]) throw new Error(`extent ${i / 2} is wrong`);
    }
    mapped++;
  }
}

const CALLERS: Record<string, (connection: NbdExport, caller: number) => Promise<void>> = {
  pread,
  preadInto,
  pwrite,
  cache,
  aioCache,
  blockStatus,
};

/** What was written last is read back. */
async function readBack(connection: NbdExport): Promise<number> {
  let count = 0;
  for (const { offset, buffer } of written.slice(0, 16)) {
    if (offset < 0) continue;
    if (!(await connection.pread(size, offset)).equals(buffer)) throw new Error(`read back wrong data at ${offset}`);
    count++;
  }
  return count;
}

const connection =
  work.pool === 0
    ? await NbdConnection.connect(work.uri, options)
    : await sdk.NbdPool.connect(work.uri, { ...options, connections: work.pool });
const caller = CALLERS[work.op];
if (caller === undefined) throw new Error(`no operation ${work.op}`);
meter.start();
await Promise.all(Array.from({ length: work.depth }, (_, i) => caller(connection, i)));
const readBackCount = await readBack(connection);
await connection.shutdown();
meter.report(verifier.verified + readBackCount + mapped);
