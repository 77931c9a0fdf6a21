// Endings with very many commands in the line, and what is left of those that were aborted there.

import { describe, expect, it } from '@jest/globals';

import { type NbdConnection, type NbdError, SHUTDOWN_ABANDON_PENDING } from '../../../lib/index.js';
import { collectGarbage } from '../../fuzz/memory.js';
import { rejection } from '../../support/caught.js';
import { openRaw, type RawPeer } from '../../support/raw-server.js';

const MANY = 12_000;

/** Issues many commands of which all but two wait, and notes the order in which they settle. */
async function line(): Promise<{
  connection: NbdConnection;
  peer: RawPeer;
  errors: Map<number, unknown>;
  all: Promise<void>;
}> {
  const { connection, peer } = await openRaw({ client: { maxInFlight: 2 } });
  const errors = new Map<number, unknown>();
  const promises: Promise<void>[] = [];
  for (let i = 0; i < MANY; i++) {
    promises.push(
      connection.cache(512, 0).then(
        () => void errors.set(i, null),
        (error: unknown) => void errors.set(i, error),
      ),
    );
  }
  await peer.requests(2);
  return { connection, peer, errors, all: Promise.all(promises).then(() => undefined) };
}

const ENDS: readonly (readonly [string, (c: NbdConnection, p: RawPeer) => void, string])[] = [
  ['close()', (c) => c.close(), 'closed'],
  ['the death of the server', (_, peer) => void peer.stream.destroy(), 'dead'],
  ['a broken rule', (_, peer) => peer.write(Buffer.alloc(64, 1)), 'dead'],
];

describe.each(ENDS)('%s with very many waiting commands', (_title, end, state) => {
  it('settles each once, waiting ones first and in order, a part of them at once; close comes last', async () => {
    const { connection, peer, errors, all } = await line();
    const closed = new Promise<number>((resolve) => connection.once('close', () => resolve(errors.size)));
    const began = new Promise((resolve) => connection.once('stateChange', resolve));
    end(connection, peer);
    await began;
    expect(connection.connectionState()).toBe(state);
    // A part of them at once, and the rest later.
    expect(connection.aioInFlight()).toBeGreaterThan(MANY - 2000);
    await all;
    await connection.shutdown();
    expect(await closed).toBeGreaterThanOrEqual(MANY - 2000);
    expect(errors.size).toBe(MANY);
    expect(connection.aioInFlight()).toBe(0);
    const order = [...errors.keys()];
    expect(order.slice(0, -2)).toEqual(Array.from({ length: MANY - 2 }, (_, i) => i + 2));
    for (const [index, error] of errors) {
      if ((error as NbdError).code !== 'ENOTCONN' && (error as NbdError).code !== 'EPROTO') throw error;
      // The first thousand in the line and those on the wire have errors of their own.
      if (index < 1000) expect(error).toMatchObject({ cookie: BigInt(index + 1), sent: index < 2, count: 512n });
    }
    expect(errors.get(MANY - 1)).toMatchObject({ code: 'ENOTCONN', sent: false });
  });

  it('may be aborted meanwhile, and asked: nothing settles twice', async () => {
    const { connection, peer } = await openRaw({ client: { maxInFlight: 2 } });
    const controller = new AbortController();
    let aborted = 0;
    let ended = 0;
    const promises = Array.from({ length: MANY }, () =>
      connection.cache(512, 0, 0, controller.signal).catch((error: unknown) => {
        if (error === 'enough') aborted++;
        else if (++ended === 3000) controller.abort('enough');
        expect(connection.aioInFlight()).toBeGreaterThanOrEqual(0);
      }),
    );
    await peer.requests(2);
    end(connection, peer);
    await Promise.all(promises);
    expect(aborted + ended).toBe(MANY);
    expect(aborted).toBeGreaterThan(0);
    await connection.shutdown();
    expect(connection.aioInFlight()).toBe(0);
  });
});

describe('shutdown() that abandons very many waiting commands', () => {
  it('ends a part of them at once, and what is on the wire by its replies', async () => {
    const { connection, peer, errors, all } = await line();
    const gone = connection.shutdown(SHUTDOWN_ABANDON_PENDING);
    expect(connection.aioInFlight()).toBeGreaterThan(MANY - 2000);
    while (errors.size < MANY - 2) await new Promise((resolve) => setImmediate(resolve));
    expect(connection.aioInFlight()).toBe(2);
    expect(errors.has(0)).toBe(false);
    connection.close();
    await Promise.all([gone, all]);
    expect(errors.size).toBe(MANY);
    expect(errors.get(0)).toMatchObject({ sent: true });
    expect(peer.buffered).toBe(0);
  });

  it('and is closed, or aborts them, in the middle of it', async () => {
    const { connection, peer } = await openRaw({ client: { maxInFlight: 2 } });
    const controller = new AbortController();
    let settled = 0;
    const promises = Array.from({ length: MANY }, () =>
      connection.cache(512, 0, 0, controller.signal).catch(() => {
        if (++settled === 5000) controller.abort('enough');
        if (settled === 6000) connection.close();
      }),
    );
    await peer.requests(2);
    const gone = connection.shutdown(SHUTDOWN_ABANDON_PENDING);
    await Promise.all([...promises, gone]);
    expect(settled).toBe(MANY);
    expect(connection.aioInFlight()).toBe(0);
  });

  it('lets the connection end in good order', async () => {
    const { connection, peer } = await openRaw({ client: { maxInFlight: 2 } });
    const calls = Array.from({ length: 5000 }, () =>
      connection.cache(512, 0).then(
        () => 'done',
        () => 'abandoned',
      ),
    );
    const requests = await peer.requests(2);
    const gone = connection.shutdown(SHUTDOWN_ABANDON_PENDING);
    peer.answer(...requests);
    void peer.serve();
    await gone;
    const outcomes = await Promise.all(calls);
    expect(outcomes.filter((outcome) => outcome === 'done')).toHaveLength(2);
    expect(connection.connectionState()).toBe('closed');
  });
});

describe('commands that were aborted where they are not sent', () => {
  it.each([
    ['the line', 'behind one that waits'],
    ['the writer', 'behind a write that does not leave'],
  ])('are not held by %s (%s)', async (where) => {
    const { connection, peer } = await openRaw({
      size: 64 << 20,
      client: { maxInFlight: where === 'the line' ? 1 : 8 },
    });
    peer.stream.pause();
    const first = rejection(connection.pwrite(Buffer.alloc(16 << 20), 0));
    const second = where === 'the line' ? rejection(connection.pread(512, 0)) : null;
    await peer.quiet(20);
    const COUNT = 4000;
    const round = async (): Promise<number> => {
      for (let i = 0; i < COUNT; i++) {
        const controller = new AbortController();
        const aborted = connection.pread(512, 0, 0, controller.signal).catch(() => undefined);
        controller.abort(null);
        await aborted;
      }
      return collectGarbage();
    };
    await round();
    const before = await round();
    const after = await round();
    // 259 bytes each, where they are held.
    expect((after - before) / COUNT).toBeLessThan(100);
    expect(connection.aioInFlight()).toBe(where === 'the line' ? 2 : 1);
    connection.close();
    await Promise.all([first, second]);
  });
});

describe('one signal of many connections', () => {
  it('warns of nothing, ends the commands of all, and keeps no listener', async () => {
    const warnings: string[] = [];
    const onWarning = (warning: Error): void => void warnings.push(warning.name);
    process.on('warning', onWarning);
    try {
      const opened = await Promise.all(Array.from({ length: 15 }, () => openRaw()));
      const controller = new AbortController();
      const registered = new Set<unknown>();
      const { signal } = controller;
      const add = signal.addEventListener.bind(signal);
      signal.addEventListener = (...args: Parameters<typeof add>) => {
        registered.add(args[1]);
        add(...args);
      };
      const calls = opened.map(({ connection }) => rejection(connection.flush(0, signal)));
      await Promise.all(opened.map(({ peer }) => peer.request()));
      expect(registered.size).toBe(1);
      controller.abort('enough');
      expect(new Set(await Promise.all(calls))).toEqual(new Set(['enough']));
      await new Promise((resolve) => setImmediate(resolve));
      expect(warnings).toEqual([]);
    } finally {
      process.off('warning', onWarning);
    }
  });
});
