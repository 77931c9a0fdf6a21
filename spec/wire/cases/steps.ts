// Scripts and checks that several tables of this folder share.

import { CMD, join, type WireCase, u32 } from '../notation.js';

export type Reply = Exclude<WireCase['script']['reply'], undefined>;
export type Steps = Extract<Extract<Reply, { steps: unknown }>['steps'], (...args: never[]) => unknown>;
type Requests = [Parameters<Steps>[0], Parameters<Steps>[0]];
type Pairs = readonly (readonly [length: number | bigint, flags: number | bigint])[];
export type Results = Parameters<Exclude<WireCase['check'], undefined>>[0];

export const after2 = (steps: (...requests: Requests) => ReturnType<Steps>): Reply => ({ collect: 2, steps: steps });
export const PREAD2 = { user: 'pread2, pread 512 4096' } as const;
export const WRITE_R = { user: 'pwrite 512 0, R' } as const;
/** Half of a read of 512 bytes. */
export const PART = 256;

export function constant(bytes: Uint8Array): () => Uint8Array {
  return () => bytes;
}

export const status = (steps: Steps, more: WireCase['script'] = {}): WireCase['script'] => ({
  ...more,
  reply: { command: CMD.STATUS, steps },
});
export const BS = { client: { metaContexts: ['base:allocation'] }, user: 'bs 65536 0, pread 512 4096' } as const;
export const extents = (context: number, ...pairs: [number, number][]): Buffer =>
  join(u32(context), ...pairs.map(([length, flags]) => join(u32(length), u32(flags))));

/** The extents that the first block status gave, as pairs. */
export const gives =
  (expected: Pairs, context = 'base:allocation') =>
  (results: Results): void => {
    if (results[1]?.status !== 'resolved') return;
    const found = (results[1].value as Map<string, Iterable<{ length: number | bigint; flags: number | bigint }>>).get(
      context,
    );
    const text = JSON.stringify([...(found ?? [])].map(({ length, flags }) => [Number(length), Number(flags)]));
    const wanted = JSON.stringify(expected.map(([length, flags]) => [Number(length), Number(flags)]));
    if (text !== wanted) throw new Error(`extents ${text} instead of ${wanted}`);
  };

export function same(seen: unknown, expected: unknown): void {
  const text = (value: unknown): string =>
    JSON.stringify(value, (_, item: unknown) => (typeof item === 'bigint' ? `${item}n` : item));
  if (text(seen) !== text(expected)) throw new Error(`${text(seen)} instead of ${text(expected)}`);
}
