// The three reply formats, so that each violation can be sent in each.

import { EXT, NO_SR, SR, type WireCase, XR } from '../../notation.js';

type Reply = Exclude<WireCase['script']['reply'], undefined>;
type Steps = Extract<Extract<Reply, { steps: unknown }>['steps'], (...args: never[]) => unknown>;
/** A command as a script sees it. */
export type Request = Parameters<Steps>[0];
/** What a script makes of it. */
export type Answer = ReturnType<Steps>;

/** Fields of a chunk that are wrong. */
export interface Wrong {
  readonly length?: number | bigint;
  readonly magic?: number;
  /** Added to the cookie. */
  readonly cookie?: bigint;
  /** Added to the offset of an extended header. */
  readonly offset?: bigint;
}

export type Chunk = (
  request: Request,
  flags: number,
  type: number,
  payload?: Uint8Array | string,
  wrong?: Wrong,
) => Buffer;

/** A format that has chunks. */
export interface ChunkStyle {
  readonly name: 'structured' | 'extended';
  readonly script: WireCase['script'];
  readonly chunk: Chunk;
}

const fields = ({ length, magic }: Wrong): { length?: number | bigint; magic?: number } => ({
  ...(length === undefined ? {} : { length }),
  ...(magic === undefined ? {} : { magic }),
});

export const CHUNK_STYLES: readonly ChunkStyle[] = [
  {
    name: 'structured',
    script: {},
    chunk: ({ cookie }, flags, type, payload = '', wrong = {}) =>
      SR(flags, type, cookie + (wrong.cookie ?? 0n), payload, fields(wrong)),
  },
  {
    name: 'extended',
    script: EXT,
    chunk: ({ cookie, offset }, flags, type, payload = '', wrong = {}) =>
      XR(flags, type, cookie + (wrong.cookie ?? 0n), offset + (wrong.offset ?? 0n), payload, fields(wrong)),
  },
];

export const SIMPLE_STYLE = { name: 'simple', script: NO_SR } as const;

/** Every command, as a word of a scenario, and whether its success carries a payload. */
export const COMMANDS = {
  pread: 'pread 512 0, pread 512 4096',
  pwrite: 'pwrite 512 0, R',
  trim: 'trim 512 0, R',
  zero: 'zero 512 0, R',
  cache: 'cache 512 0, R',
  flush: 'flush, R',
} as const;

/** Commands whose success carries no payload. */
export const WITHOUT_PAYLOAD = ['pwrite', 'trim', 'zero', 'cache', 'flush'] as const;
