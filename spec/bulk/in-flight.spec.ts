// How much is in flight, by a server of which only the latency and the bandwidth are made up, on a clock of its own.

import { describe, expect, it } from '@jest/globals';

import { type Begun, InFlight, type InFlightOptions } from '../../lib/bulk/in-flight.js';

const KIB = 1024;
const MIB = 1024 * KIB;
const START = 16 * MIB;

/** Milliseconds, and bytes per millisecond. */
interface Server {
  readonly latency: number;
  readonly bandwidth: number;
}

/** Keeps as many requests in flight as it may until this many bytes have been moved; what it has come to. */
function run(server: () => Server, bytes: number, options: Partial<InFlightOptions> = {}): InFlight & { time: number } {
  let now = 1000;
  const clock = (): number => now;
  const flight = new InFlight({ requestSize: 256 * KIB, longestRequest: 32 * MIB, start: 64, clock, ...options });
  /** When each request in flight is answered, in order, and how long it is. */
  const queue: { readonly due: number; readonly size: number; readonly begun: Begun }[] = [];
  let linkFree = now;
  for (let moved = 0; moved < bytes;) {
    while (queue.length < flight.limit) {
      const { latency, bandwidth } = server();
      linkFree = Math.max(linkFree, now) + flight.requestSize / bandwidth;
      queue.push({ due: Math.max(now, linkFree) + latency, size: flight.requestSize, begun: flight.begin() });
    }
    const next = queue.shift();
    if (next === undefined) throw new Error('nothing is in flight');
    now = Math.max(now, next.due);
    moved += next.size;
    flight.moved(next.size, next.begun);
  }
  return Object.assign(flight, { time: now - 1000 });
}

describe('bytes in flight', () => {
  it.each([
    ['a fast server nearby', { latency: 1, bandwidth: 2 * MIB }, 16, 16],
    ['a link that is full already', { latency: 20, bandwidth: 100 * KIB }, 16, 16],
    ['a slow disk', { latency: 8, bandwidth: 100 * KIB }, 16, 16],
    ['20 ms and 2 GB/s, where 40 MiB are under way', { latency: 20, bandwidth: 2 * MIB }, 40, 128],
    ['100 ms and 1 GB/s, where 100 MiB are under way', { latency: 100, bandwidth: MIB }, 100, 200],
    ['100 ms and no end of bandwidth', { latency: 100, bandwidth: 100 * MIB }, 256, 256],
  ])('suit %s', (_title, server, least, most) => {
    const { bytes } = run(() => server, (server.latency < 100 ? 4096 : 24_576) * MIB);
    expect(bytes / MIB).toBeGreaterThanOrEqual(least);
    expect(bytes / MIB).toBeLessThanOrEqual(most);
  });

  it.each([
    [20, 2 * MIB],
    [100, MIB],
    [100, 4 * MIB],
  ])('grow fast enough for the first GiB over %i ms at %i bytes a millisecond', (latency, bandwidth) => {
    const { time } = run(() => ({ latency, bandwidth }), 1024 * MIB);
    // What a full link takes, and three round trips to fill it.
    expect(time).toBeLessThan((1024 * MIB) / Math.min(bandwidth, (128 * MIB) / latency) + 4 * latency);
  });

  it('are what was under way, after a beginning at which the process itself was slow', () => {
    let asked = 0;
    const { bytes } = run(() => ({ latency: ++asked < 8 ? 200 : 1, bandwidth: 2 * MIB }), 1024 * MIB);
    expect(bytes).toBe(START);
  });

  it('raise the throughput over a long link to what the link can carry', () => {
    const far = { latency: 100, bandwidth: MIB };
    const fixed = run(() => far, 4096 * MIB, { requests: 64 });
    const auto = run(() => far, 4096 * MIB);
    expect(fixed.bytes).toBe(START);
    expect(fixed.time / auto.time).toBeGreaterThan(4);
  });

  it.each([
    ['requests', { requests: 8 }, 2 * MIB, 256 * KIB],
    ['many requests', { requests: 256 }, 64 * MIB, 256 * KIB],
    ['queueSize, which is the most', { queueSize: 40 * MIB }, 40 * MIB, MIB],
    ['a queueSize below the start', { queueSize: MIB }, MIB, 256 * KIB],
    ['a queueSize below one request', { queueSize: 1 }, 256 * KIB, 256 * KIB],
    ['requestSize, so that there are more of them', { longestRequest: undefined }, 256 * MIB, 256 * KIB],
    ['all three', { requests: 4, queueSize: 512 * KIB }, 512 * KIB, 256 * KIB],
  ])('keep to %s', (_title, options, bytes, requestSize) => {
    const flight = run(
      () => ({ latency: 100, bandwidth: 100 * MIB }),
      ('longestRequest' in options || 'queueSize' in options ? 24_576 : 2048) * MIB,
      options,
    );
    expect([flight.bytes, flight.requestSize]).toEqual([bytes, requestSize]);
    expect(flight.limit * flight.requestSize).toBe(flight.bytes);
  });

  it('are tried again after a while: the link may have become longer', () => {
    let latency = 1;
    let asked = 0;
    const flight = run(() => {
      if (++asked === 100_000) latency = 100;
      return { latency, bandwidth: 2 * MIB };
    }, 96_000 * MIB);
    expect(flight.bytes).toBeGreaterThan(4 * START);
  });
});
