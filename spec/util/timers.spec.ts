import { afterEach, describe, expect, it, jest } from '@jest/globals';

import { openRaw } from '../support/raw-server.js';
import { inNextTurn, unrefTimer } from '../../lib/util/timers.js';

afterEach(() => {
  jest.restoreAllMocks();
});

/** Timers as jsdom has them: numbers, and no setImmediate. */
function numbered(): void {
  const timers = new Map<number, NodeJS.Timeout>();
  const { setTimeout: later, setInterval: again, clearTimeout: clear } = globalThis;
  const add = (timer: NodeJS.Timeout): never => (timers.set(timers.size + 1, timer), timers.size) as never;
  const remove = (id: unknown): void => clear(timers.get(id as number));
  jest.spyOn(globalThis, 'setTimeout').mockImplementation(((f: () => void, ms: number) => add(later(f, ms))) as never);
  jest.spyOn(globalThis, 'setInterval').mockImplementation(((f: () => void, ms: number) => add(again(f, ms))) as never);
  jest.spyOn(globalThis, 'clearTimeout').mockImplementation(remove);
  jest.spyOn(globalThis, 'clearInterval').mockImplementation(remove);
}

describe('timers that are numbers', () => {
  it('are left as they are', () => {
    for (const timer of [1, undefined, null, {}]) if (timer != null) unrefTimer(timer);
    const timer = setTimeout(() => undefined, 10_000);
    unrefTimer(timer);
    expect(timer.hasRef()).toBe(false);
    clearTimeout(timer);
  });

  it('serve a connection with all of its limits', async () => {
    numbered();
    const { connection, peer } = await openRaw({
      client: { requestTimeout: 5000, connectTimeout: 5000, closeTimeout: 5000, busyPoll: 100 },
    });
    void peer.serve();
    expect(await connection.pread(512, 0)).toHaveLength(512);
    await connection.shutdown();
    expect(connection.connectionState()).toBe('closed');
  });

  it('do without setImmediate', async () => {
    const { setImmediate: kept } = globalThis;
    try {
      Reflect.deleteProperty(globalThis, 'setImmediate');
      await new Promise<void>((resolve) => inNextTurn(resolve));
    } finally {
      globalThis.setImmediate = kept;
    }
  });
});
