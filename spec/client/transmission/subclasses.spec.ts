// Buffers that are more, or less, than a Uint8Array: what counts is their memory. A subclass may have changed whatever a
// method or a property of an array is; bytes that go to other places than asked are the worst fault there is.

import { describe, expect, it } from '@jest/globals';
import { runInNewContext } from 'node:vm';

import { createWriteStream, type NbdConnection } from '../../../lib/index.js';
import { caught, rejection } from '../../support/caught.js';
import * as g from '../../support/golden.js';
import { openRaw, type RawPeer } from '../../support/raw-server.js';

const KIB = 1024;
const SIZE = 8 * 1024 * KIB;

type Make = (length: number) => Uint8Array;

/** Overlays a view with another class, so that every constructor can be tried. */
const as =
  (Class: { prototype: object }): Make =>
  (length) => {
    const view = new Uint8Array(new ArrayBuffer(length + 96), 32, length);
    return Object.setPrototypeOf(view, Class.prototype) as Uint8Array;
  };

class Page extends Uint8Array {
  // One argument is all that it passes on: a view of other memory it cannot make.
  // eslint-disable-next-line @typescript-eslint/no-useless-constructor
  constructor(length: number) {
    super(length);
  }
}
class Throwing extends Uint8Array {
  static ready = false;
  constructor(length: number) {
    super(length);
    if (Throwing.ready) throw new Error('not twice');
  }
}
class Species extends Uint8Array {
  static get [Symbol.species](): Uint8ArrayConstructor {
    return Uint16Array as unknown as Uint8ArrayConstructor;
  }
}
class ThrowingSpecies extends Uint8Array {
  static get [Symbol.species](): Uint8ArrayConstructor {
    throw new Error('no species');
  }
}
class Parts extends Uint8Array {
  override subarray(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(1);
  }
  override slice(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(1);
  }
}
class Deaf extends Uint8Array {
  override set(): void {}
  override fill(): this {
    throw new Error('fill');
  }
}
const lying = (name: string, value: unknown): Make => {
  class Lying extends Uint8Array {}
  Object.defineProperty(Lying.prototype, name, { get: () => value });
  return as(Lying);
};
class OwnBuffer extends Buffer {
  static override from(): never {
    throw new Error('from');
  }
}
Object.defineProperty(OwnBuffer.prototype, 'copy', { value: () => 0 });

const GrowableArrayBuffer = ArrayBuffer as unknown as new (n: number, o: { maxByteLength: number }) => ArrayBuffer;

const KINDS: readonly (readonly [string, Make])[] = [
  ['a Buffer', (length) => Buffer.alloc(length)],
  ['a part of a Buffer', (length) => Buffer.alloc(length + 100).subarray(50, 50 + length)],
  ['a subclass that passes its argument on', (length) => new Page(length)],
  [
    'a subclass whose constructor throws the second time',
    (length) => {
      Throwing.ready = false;
      const made = new Throwing(length);
      Throwing.ready = true;
      return made;
    },
  ],
  ['a subclass of another species', as(Species)],
  ['a subclass whose species throws', as(ThrowingSpecies)],
  ['a subclass with parts of its own', as(Parts)],
  ['a subclass that cannot be set nor filled', as(Deaf)],
  ['a subclass with another length', lying('length', 3)],
  ['a subclass with another byteLength', lying('byteLength', 3)],
  ['a subclass with another byteOffset', lying('byteOffset', 0)],
  ['a subclass with another buffer', lying('buffer', new ArrayBuffer(8))],
  ['a subclass with another tag', lying(Symbol.toStringTag as never, 'Float64Array')],
  ['a subclass of Buffer', as(OwnBuffer)],
  ['an array without a prototype', as({ prototype: null as never })],
  [
    'an array with a length of its own',
    (length) => Object.defineProperty(new Uint8Array(length), 'length', { value: 7 }),
  ],
  ['an array of another realm', (length) => runInNewContext(`new Uint8Array(${length})`) as Uint8Array],
  ['shared memory', (length) => new Uint8Array(new SharedArrayBuffer(length))],
  ['resizable memory', (length) => new Uint8Array(new GrowableArrayBuffer(length, { maxByteLength: 2 * length }))],
];

const memoryOf = (view: Uint8Array): Buffer => {
  const get = (name: string): unknown =>
    Object.getOwnPropertyDescriptor(Object.getPrototypeOf(Uint8Array.prototype), name)?.get?.call(view);
  return Buffer.from(get('buffer') as ArrayBuffer, get('byteOffset') as number, get('byteLength') as number);
};

/** Answers all reads and keeps what is written. */
function serve(peer: RawPeer): Map<bigint, Buffer> {
  const written = new Map<bigint, Buffer>();
  void peer.serve(({ type, offset, payload }) => {
    if (type === g.CMD.WRITE) written.set(offset, payload);
  });
  return written;
}

const LENGTHS = [512, 8 * KIB, 8 * KIB + 512, 300 * KIB, 3 * 1024 * KIB];

describe.each(KINDS)('%s', (_title, make) => {
  it('is written as it is in memory', async () => {
    const { connection, peer } = await openRaw({ size: SIZE });
    const written = serve(peer);
    const completion = (call: (done: (error: unknown) => boolean) => bigint): Promise<unknown> =>
      new Promise((resolve) => call((error) => (resolve(error), true)));
    for (const length of LENGTHS) {
      const bytes = make(length);
      const want = g.content(length, length);
      want.copy(memoryOf(bytes));
      await connection.pwrite(bytes, 0);
      expect(await completion((done) => connection.aioPwrite(bytes, length, done))).toBeNull();
      expect(written.get(0n)?.equals(want)).toBe(true);
      expect(written.get(BigInt(length))?.equals(want)).toBe(true);
    }
  });

  it('is read into where it is in memory, and cleared there before', async () => {
    const { connection, peer } = await openRaw({ size: SIZE });
    serve(peer);
    const ways: ((bytes: Uint8Array) => Promise<unknown>)[] = [
      (bytes) => connection.preadInto(bytes, 512),
      (bytes) =>
        new Promise((resolve, reject) => {
          connection.aioPread(bytes, 512, (error) => (error === null ? resolve(null) : reject(error), true));
        }),
      (bytes) =>
        new Promise((resolve, reject) => {
          const chunk = (part: Buffer, offset: bigint): void => expect(part[0]).toBe(g.content(Number(offset), 1)[0]);
          connection.aioPreadStructured(bytes, 512, chunk, (e) => (e === null ? resolve(null) : reject(e), true));
        }),
    ];
    for (const length of LENGTHS) {
      for (const read of ways) {
        const bytes = make(length);
        memoryOf(bytes).fill(0xee);
        const done = read(bytes);
        expect(memoryOf(bytes).every((byte) => byte === 0)).toBe(true);
        await done;
        expect(memoryOf(bytes).equals(g.content(512, length))).toBe(true);
      }
    }
  });

  it('is a chunk of a write stream', async () => {
    const { connection, peer } = await openRaw({ size: SIZE });
    const written = serve(peer);
    const bytes = make(300 * KIB);
    // Node's own rules: the stream refuses an object that Node does not take for a Uint8Array.
    if (!(bytes instanceof Uint8Array) && Object.getPrototypeOf(bytes) === null) return;
    const want = g.content(7, 300 * KIB);
    want.copy(memoryOf(bytes));
    const stream = createWriteStream(connection, { requestSize: 256 * KIB });
    await new Promise((resolve, reject) => stream.on('error', reject).on('finish', resolve).end(bytes));
    expect(Buffer.concat([written.get(0n)!, written.get(BigInt(256 * KIB))!]).equals(want)).toBe(true);
  });
});

describe('what has no bytes of its own', () => {
  const VALUES: readonly (readonly [string, unknown])[] = [
    ['a Proxy', new Proxy(new Uint8Array(512), {})],
    ['a Proxy that throws', new Proxy(new Uint8Array(512), { get: () => caught(() => 1), getPrototypeOf: () => null })],
    ['a DataView', new DataView(new ArrayBuffer(512))],
    ['an Int8Array', new Int8Array(512)],
    ['an object whose prototype is that of an array', Object.create(Uint8Array.prototype)],
    ['an object with the tag of one', { [Symbol.toStringTag]: 'Uint8Array', length: 512 }],
    [
      'a subclass of Int8Array with a tag',
      Object.defineProperty(new Int8Array(512), Symbol.toStringTag, { get: () => caught(() => 0) }),
    ],
  ];
  it.each(VALUES)('%s is refused before anything is sent', async (_title, value) => {
    const { connection, peer } = await openRaw();
    const bytes = value as Uint8Array;
    const calls: ((c: NbdConnection) => unknown)[] = [
      (c) => caught(() => c.aioPwrite(bytes, 0)),
      (c) => caught(() => c.aioPread(bytes, 0)),
      (c) => caught(() => c.aioPreadStructured(bytes, 0, () => undefined)),
      (c) => rejection(c.pwrite(bytes, 0)),
      (c) => rejection(c.preadInto(bytes, 0)),
    ];
    for (const call of calls) {
      expect(await call(connection)).toMatchObject({
        code: 'EINVAL',
        message: expect.stringMatching(/must be a Uint8Array, not /),
      });
    }
    expect(peer.buffered).toBe(0);
    expect(connection.aioInFlight()).toBe(0);
  });
});
