import { describe, expect, it } from '@jest/globals';
import { MemoryBackend } from '../../lib/server/index.js';
import { randomNumbers } from '../support/deliver.js';

const PAGE = 65536;
const read = (backend: MemoryBackend, offset: number | bigint, length: number): Buffer => {
  const bytes = Buffer.alloc(length, 0xee);
  backend.read(bytes, offset);
  return bytes;
};
const runs = (backend: MemoryBackend, offset: number | bigint, count: number | bigint): unknown[] =>
  [...backend.extents(offset, count)].map(({ length, flags }) => [length, flags]);

describe('MemoryBackend', () => {
  it('agrees with an array of bytes, whatever is written, zeroed and trimmed', () => {
    const SIZE = PAGE * 3 + 1000;
    for (let seed = 1; seed <= 20; seed += 1) {
      const next = randomNumbers(seed);
      const backend = new MemoryBackend(SIZE);
      const model = Buffer.alloc(SIZE);
      for (let step = 1; step <= 30; step += 1) {
        const offset = Math.floor(next() * SIZE);
        const count = 1 + Math.floor(next() * (SIZE - offset));
        const what = next();
        if (what < 0.5) {
          const data = Buffer.alloc(count, step);
          backend.write(data, offset);
          data.copy(model, offset);
          data.fill(0xff); // The backend must have made its own copy.
        } else {
          if (what < 0.6) backend.trim(offset, count);
          else backend.zero(offset, count, { fua: false, fast: false, noHole: what < 0.8 });
          model.fill(0, offset, offset + count);
        }
        expect(read(backend, 0, SIZE).equals(model)).toBe(true);
        let at = 0;
        for (const { length, flags } of backend.extents(0, SIZE)) {
          const end = at + Number(length);
          // What is reported as zero must be zero; data may hold anything.
          if (flags !== 0) expect(model.subarray(at, end).every((byte) => byte === 0)).toBe(true);
          at = end;
        }
        expect(at).toBe(SIZE);
      }
    }
  });

  it('takes memory for what is written only, and gives whole pages back', () => {
    const backend = new MemoryBackend(1n << 40n);
    backend.write(Buffer.from('x'), (1n << 40n) - 1n);
    backend.write(Buffer.alloc(PAGE * 2, 1), PAGE - 1);
    expect(backend.allocated).toBe(4 * PAGE);
    backend.trim(0, 1 << 30);
    expect(backend.allocated).toBe(PAGE);
    backend.zero(0, 1n << 40n);
    expect(backend.allocated).toBe(0);
    expect(runs(backend, 0, 1n << 40n)).toEqual([[2 ** 40, 3]]);
  });

  it('reaches the last byte of 64 bits', () => {
    const size = (1n << 64n) - 1n;
    const backend = new MemoryBackend(size);
    backend.write(Buffer.from('end'), size - 3n);
    expect(read(backend, size - 5n, 5).toString('latin1')).toBe('\0\0end');
    expect(runs(backend, size - 70000n, 70000n)).toEqual([
      [70000 - 65535, 3],
      [65535, 0],
    ]);
    backend.zero(1n << 63n, size - (1n << 63n));
    expect(backend.allocated).toBe(0);
  });

  it('distinguishes holes from zeroes that stay allocated, without memory for either', () => {
    const backend = new MemoryBackend(1n << 50n);
    backend.zero(PAGE, 1n << 49n, { noHole: true, fua: false, fast: true });
    expect(backend.allocated).toBe(0);
    backend.trim(PAGE * 2, PAGE);
    backend.write(Buffer.from('x'), PAGE * 4);
    expect(runs(backend, 0, PAGE * 6)).toEqual([
      [PAGE, 3],
      [PAGE, 2],
      [PAGE, 3],
      [PAGE, 2],
      [PAGE, 0],
      [PAGE, 2],
    ]);
  });

  it('begins with a copy of given bytes', () => {
    const bytes = Buffer.from('some contents');
    const backend = MemoryBackend.from(bytes, { readOnly: true });
    bytes.fill(0);
    expect(backend.size).toBe(13);
    expect(backend.readOnly).toBe(true);
    expect(read(backend, 5, 8).toString()).toBe('contents');
  });
});
