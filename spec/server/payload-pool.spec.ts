import { describe, expect, it } from '@jest/globals';
import { PayloadPool } from '../../lib/server/transmission/payload-pool.js';

const SIZE = 100_000;

describe('PayloadPool', () => {
  it('gives the same memory again, for any length of the same power of two', () => {
    const pool = new PayloadPool(1 << 20);
    const first = pool.take(SIZE);
    pool.give(first);
    const second = pool.take(SIZE + 5000);
    expect(second.length).toBe(SIZE + 5000);
    expect(second.buffer).toBe(first.buffer);
    expect(pool.take(SIZE).buffer).not.toBe(first.buffer);
  });

  it('takes back what it gave, once, and nothing else', () => {
    const pool = new PayloadPool(1 << 20);
    const [given, foreign] = [pool.take(SIZE), Buffer.alloc(131_072)];
    pool.give(given);
    pool.give(given);
    pool.give(foreign);
    expect(pool.take(SIZE).buffer).toBe(given.buffer);
    const next = pool.take(SIZE);
    expect(next.buffer).not.toBe(given.buffer);
    expect(next.buffer).not.toBe(foreign.buffer);
  });

  it('keeps no more than its limit', () => {
    const pool = new PayloadPool(131_072);
    const [a, b] = [pool.take(SIZE), pool.take(SIZE)];
    pool.give(a);
    pool.give(b);
    expect(pool.take(SIZE).buffer).toBe(a.buffer);
    expect(pool.take(SIZE).buffer).not.toBe(b.buffer);
  });
});
