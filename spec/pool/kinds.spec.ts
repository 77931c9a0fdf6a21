// The README's table of what happens to which command at which kind of failure, cell by cell.

import { describe, expect, it } from '@jest/globals';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { NbdError, NbdPool, type NbdPoolOptions, NbdUnflushedError } from '../../lib/index.js';
import { MemoryBackend } from '../../lib/server/index.js';
import { ROOT } from '../support/root.js';
import { Place, SIZE } from './place.js';

interface Case {
  readonly place: Place;
  readonly pool: NbdPool;
  /** Issues the command. */
  readonly call: (signal?: AbortSignal) => Promise<unknown>;
  /** Its name to the server's faults. */
  readonly name: 'pread' | 'pwrite' | 'flush' | 'trim' | 'zero' | 'cache' | 'blockStatus';
}

type Call = (pool: NbdPool, signal?: AbortSignal) => Promise<unknown>;

const CALLS: Readonly<Record<string, readonly [Case['name'], Call]>> = {
  pread: ['pread', (pool, signal) => pool.pread(4096, 0, 0, signal)],
  blockStatus: ['blockStatus', (pool, signal) => pool.blockStatus(4096, 0, 0, signal)],
  pwrite: ['pwrite', (pool, signal) => pool.pwrite(Buffer.alloc(4096, 1), 0, 0, signal)],
  trim: ['trim', (pool, signal) => pool.trim(4096, 0, 0, signal)],
  zero: ['zero', (pool, signal) => pool.zero(4096, 0, 0, signal)],
  flush: ['flush', (pool, signal) => pool.flush(0, signal)],
  cache: ['cache', (pool, signal) => pool.cache(4096, 0, 0, signal)],
};

const RECONNECT = { minDelay: 1, maxDelay: 20 };

/** How each row of the table comes about. */
interface Kind {
  readonly options?: NbdPoolOptions;
  readonly run: (given: Case) => Promise<unknown>;
}

/** Issues the command while the server keeps it, and does something then. */
async function during({ place, call, name }: Case, act: () => unknown): Promise<unknown> {
  place.server.faults.push({ command: name, nth: 1, stall: true });
  const before = place.server.statistics.requests[name];
  const promise = call();
  promise.catch(() => undefined);
  while (place.server.statistics.requests[name] === before) await sleep(1);
  await act();
  return promise;
}

const KINDS: Readonly<Record<string, Kind>> = {
  'The connection ends before the reply': { run: (given) => during(given, () => given.place.cut()) },
  'The connection makes no progress for `requestTimeout`': {
    options: { requestTimeout: 100 },
    run: (given) => during(given, () => undefined),
  },
  'The server breaks the protocol': { run: (given) => during(given, () => given.place.disturb()) },
  'The server answers `ESHUTDOWN`': {
    run: ({ place, name, call }) => {
      place.server.faults.push({ command: name, nth: 1, error: 'ESHUTDOWN' });
      return call();
    },
  },
  'The connection ends before the reply, after an unflushed write': {
    run: async (given) => {
      await given.pool.pwrite(Buffer.alloc(512), 8192);
      return during(given, () => given.place.cut());
    },
  },
  'The connection ends after the reply': {
    run: async ({ place, pool, call }) => {
      const value = await call();
      const away = new Promise((resolve) => pool.once('lost', resolve));
      place.cut();
      await away;
      return value;
    },
  },
  'The server answers `EIO`': {
    run: ({ place, name, call }) => {
      place.server.faults.push({ command: name, nth: 1, error: 'EIO' });
      return call();
    },
  },
  'The server answers `EIO`, with `retry`': {
    options: { retry: { attempts: 3, delay: 5 } },
    run: ({ place, name, call }) => {
      place.server.faults.push({ command: name, times: 3, error: 'EIO' });
      return call();
    },
  },
  'The server answers `EINVAL`, with `retry`': {
    options: { retry: { attempts: 3, delay: 5 } },
    run: ({ place, name, call }) => {
      place.server.faults.push({ command: name, nth: 1, error: 'EINVAL' });
      return call();
    },
  },
  'No connection comes back within `reconnect.within`': {
    options: { reconnect: { ...RECONNECT, within: 60 } },
    run: (given) => during(given, () => given.place.stop()),
  },
  'The last connection ends, with `reconnect: false`': {
    options: { reconnect: false },
    run: (given) => during(given, () => given.place.cut()),
  },
  'Another export comes back: size, read-only, block sizes, contexts, name': {
    run: (given) =>
      during(given, async () => {
        await given.place.stop();
        await given.place.start({}, new MemoryBackend(SIZE / 2));
      }),
  },
  'The signal is aborted while it waits': {
    run: async ({ place, pool, call }) => {
      const away = new Promise((resolve) => pool.once('away', resolve));
      await place.stop();
      await away;
      const controller = new AbortController();
      const promise = call(controller.signal);
      setTimeout(() => controller.abort('my reason'), 5);
      return promise;
    },
  },
};

/** What a cell says is so. */
async function check(cell: string, given: Case, run: Kind['run']): Promise<void> {
  const outcome = await run(given).then(
    (value) => ({ value, error: null }),
    (error: unknown) => ({ value: undefined, error }),
  );
  const { pool } = given;
  const [said, code] = cell.split(', `');
  switch (said) {
    case 'issued again':
      expect(outcome.error).toBeNull();
      expect(pool.statistics).toMatchObject({ reconnects: 1, replayed: 1, retries: 0 });
      return;
    case 'tried again':
      expect(outcome.error).toBeNull();
      expect(pool.statistics).toEqual({ connections: 1, reconnects: 0, retries: 3, replayed: 0 });
      return;
    case 'nothing':
      expect(outcome.error).toBeNull();
      await pool.flush();
      return;
    case 'the next `flush` rejects':
      expect(outcome.error).toBeNull();
      await expect(pool.flush()).rejects.toMatchObject({
        name: code?.slice(0, -1),
        ranges: [{ offset: 0n, length: 4096n }],
      });
      await pool.flush();
      return;
    case 'rejects':
      expect(outcome.error).toBeInstanceOf(NbdError);
      if (outcome.error instanceof NbdUnflushedError) {
        expect(`${outcome.error.name}\``).toBe(code);
        expect(outcome.error.ranges).toEqual([{ offset: 8192n, length: 512n }]);
      } else {
        expect(outcome.error).toMatchObject({ code: code?.slice(0, -1) });
        expect((outcome.error as NbdError).syscall).toBeDefined();
      }
      expect(pool.statistics.retries).toBe(0);
      return;
    case 'rejects with the reason':
      expect(outcome.error).toBe('my reason');
      return;
    default:
      throw new Error(`the cell says ${cell}`);
  }
}

const rows = readFileSync(join(ROOT, 'README.md'), 'utf8')
  .split('\n')
  .map((line) => line.split(' | ').map((cell) => cell.replace(/^\| | \|$/g, '').trim()));
const from = rows.findIndex(([head]) => head === 'What happens');
const heads = rows[from]?.slice(1) ?? [];
const table = rows.slice(
  from + 2,
  rows.findIndex((row, i) => i > from && row.length === 1),
);

describe('the table of failures', () => {
  it('has a row for each kind', () => {
    expect(table.map(([what]) => what).sort()).toEqual(Object.keys(KINDS).sort());
    expect(heads.flatMap((head) => head.replaceAll('`', '').split(', ')).sort()).toEqual(Object.keys(CALLS).sort());
  });

  const cells = table.flatMap(([what, ...cellsOfRow]) =>
    cellsOfRow.flatMap((cell, i) =>
      (heads[i] ?? '')
        .replaceAll('`', '')
        .split(', ')
        .map((command) => [what ?? '', command, cell] as const),
    ),
  );

  it.each(cells)('%s: %s: %s', async (what, command, cell) => {
    const { options, run } = KINDS[what] as Kind;
    await using place = await Place.open();
    const pool = await NbdPool.connect(place.target, {
      ...{ metaContexts: ['base:allocation'], connections: 1, reconnect: RECONNECT, closeTimeout: 500 },
      ...options,
    });
    const [name, call] = CALLS[command] as readonly [Case['name'], Call];
    try {
      await check(cell, { place, pool, name, call: (signal) => call(pool, signal) }, run);
    } finally {
      pool.close();
    }
  });
});
