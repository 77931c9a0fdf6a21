// Accesses the memory of a caller's byte array directly. A subclass of Uint8Array may override any property, method or
// its species, so that `subarray()` returns another array and `length` is wrong; the accessors of %TypedArray% read the
// engine's own values.

import { Buffer } from './buffer.js';

const prototype = Object.getPrototypeOf(Uint8Array.prototype) as object;

const accessor = (name: PropertyKey): ((this: unknown) => unknown) =>
  // eslint-disable-next-line @typescript-eslint/unbound-method -- called on a view of the caller's
  Object.getOwnPropertyDescriptor(prototype, name)?.get as (this: unknown) => unknown;

const tagOf = accessor(Symbol.toStringTag);
const bufferOf = accessor('buffer') as (this: Uint8Array) => ArrayBufferLike;
const offsetOf = accessor('byteOffset') as (this: Uint8Array) => number;
const lengthOf = accessor('byteLength') as (this: Uint8Array) => number;

/** True for a Uint8Array of any realm and class; false for a Proxy of one, which has no memory of its own. */
export const isUint8Array = (value: unknown): value is Uint8Array => tagOf.call(value) === 'Uint8Array';

/** The length in bytes; 0 if the memory is detached or the view is out of bounds. */
export const byteLengthOf = (view: Uint8Array): number => lengthOf.call(view);

/** `Int8Array`, `DataView` and so on, without calling any code of the caller's. */
export const kindOfView = (view: ArrayBufferView): string => (tagOf.call(view) as string | undefined) ?? 'DataView';

const bufferPrototype: unknown = Buffer.prototype;
const arrayPrototype: unknown = Uint8Array.prototype;

/**
 * Whether the view has at most `most` bytes, its class is Buffer or Uint8Array itself, and its length properties are
 * not overridden.
 */
export function isPlain(view: Uint8Array, most = Infinity): boolean {
  const own: unknown = Object.getPrototypeOf(view);
  if (own !== bufferPrototype && own !== arrayPrototype) return false;
  const { length } = view;
  return length <= most && view.byteLength === length && lengthOf.call(view) === length;
}

/** A plain view of the same memory, with a fixed length. */
export function memoryOf(view: Uint8Array): Uint8Array {
  const length = lengthOf.call(view);
  // No view can be made of detached memory, and an empty view needs no memory.
  return length === 0 ? new Uint8Array(0) : new Uint8Array(bufferOf.call(view), offsetOf.call(view), length);
}
