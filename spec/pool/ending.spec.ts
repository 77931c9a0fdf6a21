// Ends and aborts at every moment: everything settles, and nothing is left.

import { getEventListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

import { describe, expect, it } from '@jest/globals';

import { NbdPool } from '../../lib/index.js';
import { CALLS } from '../client/calls.js';
import { Random } from '../fuzz/random.js';
import { SEED, withSeed } from '../fuzz/seed.js';
import { bundled } from '../support/bundled.js';
import { runTool } from '../support/tools.js';
import { Place } from './place.js';

const TIMEOUT = 60_000;

const program = async (...args: string[]): Promise<string[]> => {
  const path = (await bundled(['spec/pool/programs/leave-nothing.ts']))('leave-nothing');
  const { stdout, stderr } = await runTool(process.execPath, [path, ...args], {
    env: { FORCE_COLOR: '0' },
    timeout: TIMEOUT,
  });
  expect(stderr).toBe('');
  return stdout.trim().split('\n');
};

describe('the end of a pool', () => {
  it(
    'leaves no timer and no socket behind, and settles what was called',
    async () => {
      expect(await program()).toEqual([
        'close: EINVAL',
        'close with commands in flight and waiting: ENOTCONN',
        'close while another connection is being made: ENOTCONN',
        'close while it is away: ENOTCONN,ENOTCONN',
        'close while a command waits to be tried again: ENOTCONN',
        'close while writes are written again: ENOTCONN',
        'shutdown: read',
        'shutdown lets settle what was called: resolved',
        'shutdown that abandons what waits: resolved,ENOTCONN,ENOTCONN',
        'shutdown while it is away: ENOTCONN',
        'shutdown of a silent server: ENOTCONN',
        'no way back: ENOTCONN',
        'the time is over: ENOTCONN',
        'another export: ESTALE',
        'an abort of connect: true',
      ]);
    },
    TIMEOUT,
  );

  it(
    'is not needed for the process to end, where the pool is unreferenced',
    async () => {
      await using place = await Place.open();
      expect(await program('unref', place.target.path)).toEqual(['open']);
      expect(await program('unref away')).toEqual(['open']);
    },
    TIMEOUT,
  );
});

describe(withSeed('aborts'), () => {
  it.each(CALLS.map((call) => [call.name, call] as const))(
    '%s, at any moment of losses and returns, settles with its value or the reason',
    async (_name, call) => {
      const random = new Random(SEED);
      await using place = await Place.open();
      const pool = await NbdPool.connect(place.target, {
        ...{ metaContexts: ['base:allocation'], reconnect: { minDelay: 1, maxDelay: 5 }, maxInFlight: 4 },
        ...{ retry: { attempts: 2, delay: 3 } },
      });
      place.server.faults.push({ when: () => random.oneIn(9), error: 'EIO' });
      const signals: AbortSignal[] = [];
      const outcomes: unknown[] = [];
      for (let round = 0; round < 12; round++) {
        const settling = Array.from({ length: 10 }, async () => {
          const controller = new AbortController();
          signals.push(controller.signal);
          // The pool is called as a connection is.
          const promise = call.promise(pool as never, { signal: controller.signal });
          const moment = random.below(12);
          if (moment === 0) controller.abort('mine');
          else setTimeout(() => controller.abort('mine'), moment - 1);
          try {
            await promise;
            outcomes.push('value');
          } catch (error) {
            outcomes.push(error === 'mine' ? error : (error as Error).name);
          }
        });
        await sleep(random.below(6));
        if (random.oneIn(2)) place.cut();
        await Promise.all(settling);
      }
      const kinds = new Set(outcomes);
      kinds.delete('NbdCommandError');
      if (call.name === 'flush') kinds.delete('NbdUnflushedError');
      expect([...kinds].sort()).toEqual(kinds.has('value') ? ['mine', 'value'] : ['mine']);
      expect(signals.flatMap((signal) => getEventListeners(signal, 'abort'))).toEqual([]);
      pool.close();
    },
  );

  it('very many that wait, and their abort, hold nothing up', async () => {
    await using place = await Place.open();
    const pool = await NbdPool.connect(place.target, { reconnect: { minDelay: 1000, maxDelay: 1000 } });
    const gone = new Promise((resolve) => pool.once('away', resolve));
    await place.stop();
    await gone;
    const controller = new AbortController();
    const count = 20_000;
    let aborted = 0;
    const settling = Array.from({ length: count }, () =>
      pool.cache(512, 0, 0, controller.signal).catch((reason: unknown) => {
        if (reason === 'mine') aborted++;
      }),
    );
    const rest = Array.from({ length: count }, () =>
      pool.cache(512, 0).catch((error: unknown) => (error as { code: string }).code),
    );
    controller.abort('mine');
    await Promise.all(settling);
    expect(aborted).toBe(count);
    pool.close();
    expect(new Set(await Promise.all(rest))).toEqual(new Set(['ENOTCONN']));
  });

  it('a buffer is untouched once its read has settled, and a write sends what it held', async () => {
    await using place = await Place.open();
    await using pool = await NbdPool.connect(place.target, { reconnect: { minDelay: 1, maxDelay: 5 } });
    const buffers: Buffer[] = [];
    for (let round = 0; round < 30; round++) {
      const bytes = Buffer.alloc(256 * 1024);
      const controller = new AbortController();
      setTimeout(() => controller.abort('mine'), round % 6);
      if (round % 3 === 0) setTimeout(() => place.cut(), round % 4);
      await pool.preadInto(bytes, 0, 0, controller.signal).catch(() => undefined);
      bytes.fill(0xee);
      buffers.push(bytes);
    }
    await sleep(20);
    for (const bytes of buffers) expect(bytes.every((byte) => byte === 0xee)).toBe(true);
    const transferred = new Uint8Array(new ArrayBuffer(512));
    place.server.faults.push({ command: 'write', nth: 1, stall: true });
    const writing = pool.pwrite(transferred, 0);
    await sleep(20);
    structuredClone(transferred.buffer, { transfer: [transferred.buffer] });
    place.cut();
    await expect(writing).rejects.toMatchObject({ code: 'EFAULT', sent: true });
    await pool.flush().catch(() => undefined);
  });
});
