// Growing and shrinking, as a real server sees it: connections that were idle for long enough are ended in good order.

import { readdirSync, readlinkSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

import { afterEach, expect, it, jest } from '@jest/globals';

import { NbdPool } from '../../lib/index.js';
import { describeWith, startNbdkit } from '../support/real-servers.js';
import { until } from '../support/waiting.js';

/** Sockets that a process has open. */
const socketsOf = (pid: number): number =>
  readdirSync(`/proc/${pid}/fd`).filter((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`).startsWith('socket:');
    } catch {
      return false;
    }
  }).length;

const LOOK = 7_500;

afterEach(() => {
  jest.useRealTimers();
});

describeWith(['nbdkit'], 'the connections of a pool', () => {
  it('grow under load and shrink to one when idle, without a loss', async () => {
    // The looks at idle connections are the only intervals; everything else runs in real time.
    jest.useFakeTimers({
      doNotFake: ['setTimeout', 'clearTimeout', 'setImmediate', 'clearImmediate', 'nextTick', 'queueMicrotask', 'performance', 'Date', 'hrtime'], // prettier-ignore
    });
    await using server = await startNbdkit({ filters: ['delay'], args: ['1M', 'rdelay=20ms'] });
    const before = socketsOf(server.pid);
    const pool = await NbdPool.connect(server.uri(), { connections: 4 });
    const losses: unknown[] = [];
    pool.on('lost', (detail) => losses.push(detail));
    while (pool.statistics.connections < 4) await Promise.all(Array.from({ length: 32 }, () => pool.pread(512, 0)));
    expect(socketsOf(server.pid) - before).toBe(4);
    await pool.pwrite(Buffer.alloc(512, 1), 0);
    await pool.flush();
    // One at a time, each after four looks at which it was idle.
    for (let looks = 0; looks < 12 && pool.statistics.connections > 1; looks++) {
      jest.advanceTimersByTime(LOOK);
      await sleep(100);
    }
    await until(() => pool.statistics.connections === 1);
    await until(() => socketsOf(server.pid) - before === 1);
    expect((await pool.pread(512, 0)).equals(Buffer.alloc(512, 1))).toBe(true);
    expect([losses, pool.statistics.reconnects]).toEqual([[], 0]);
    await pool.shutdown();
    await until(() => socketsOf(server.pid) === before);
  });
});
