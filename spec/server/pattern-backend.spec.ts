import { describe, expect, it } from '@jest/globals';
import { fillPattern, PatternBackend } from '../../lib/server/index.js';

const at = (offset: number | bigint, length: number): string => {
  const bytes = Buffer.alloc(length, 0xee);
  new PatternBackend(1n << 63n).read(bytes, offset);
  return bytes.toString('hex');
};

describe('PatternBackend', () => {
  it("holds nbdkit's pattern: each 8 bytes are their own offset, big-endian", () => {
    expect(at(0, 24)).toBe('000000000000000000000000000000080000000000000010');
    expect(at(0xfffffff0, 24)).toBe('00000000fffffff000000000fffffff80000000100000000');
    expect(at(0x1234_5678_9abc_def0n, 8)).toBe('123456789abcdef0');
  });

  it('gives every part of it, however it is cut', () => {
    const [base, length] = [0xff_ffff_ffc0, 128];
    const whole = at(base, length);
    for (let from = 0; from < length; from += 1) {
      for (const count of [1, 2, 7, 8, 9, 31]) {
        const part = at(base + from, Math.min(count, length - from));
        expect(part).toBe(whole.slice(from * 2, from * 2 + part.length));
      }
    }
  });

  it('accepts writes of itself and no others', () => {
    const backend = new PatternBackend(1 << 20, { writable: true });
    const data = Buffer.alloc(1000);
    fillPattern(data, 12345);
    expect(() => backend.write(data, 12345)).not.toThrow();
    data[999]! ^= 1;
    expect(() => backend.write(data, 12345)).toThrow(expect.objectContaining({ code: 'EIO' }));
    expect(new PatternBackend(1 << 20).readOnly).toBe(true);
    expect(backend.readOnly).toBe(false);
  });
});
