// Byte arrays of callers, taken by their memory. A subclass of Uint8Array may have changed any property, method or
// its species, so that `subarray()` is another array and `length` is not the length; the accessors of %TypedArray% read
// what the engine knows.

const prototype = Object.getPrototypeOf(Uint8Array.prototype) as object;

const accessor = (name: PropertyKey): ((this: unknown) => unknown) =>
  // eslint-disable-next-line @typescript-eslint/unbound-method -- called on a view of the caller's
  Object.getOwnPropertyDescriptor(prototype, name)?.get as (this: unknown) => unknown;

const tagOf = accessor(Symbol.toStringTag);
const bufferOf = accessor('buffer') as (this: Uint8Array) => ArrayBufferLike;
const offsetOf = accessor('byteOffset') as (this: Uint8Array) => number;
const lengthOf = accessor('byteLength') as (this: Uint8Array) => number;

/** True for a Uint8Array of any realm and class; false for a Proxy of one, which has no memory. */
export const isUint8Array = (value: unknown): value is Uint8Array => tagOf.call(value) === 'Uint8Array';

/** The length in bytes; 0 when the memory is detached or the view is outside of it. */
export const byteLengthOf = (view: Uint8Array): number => lengthOf.call(view);

/** `Int8Array`, `DataView` and so on, without a call of anything that is the caller's. */
export const kindOfView = (view: ArrayBufferView): string => (tagOf.call(view) as string | undefined) ?? 'DataView';

/** True where the class is Buffer or Uint8Array itself, and the object's lengths are what they say. */
export function isPlain(view: Uint8Array): boolean {
  const own = Object.getPrototypeOf(view) as unknown;
  if (own !== Buffer.prototype && own !== Uint8Array.prototype) return false;
  const length = lengthOf.call(view);
  return view.length === length && view.byteLength === length;
}

/** A plain view of the same memory, of a length that stays as it is. */
export function memoryOf(view: Uint8Array): Uint8Array {
  const length = lengthOf.call(view);
  // Nothing can be laid over detached memory, and nothing is needed for an empty view.
  return length === 0 ? new Uint8Array(0) : new Uint8Array(bufferOf.call(view), offsetOf.call(view), length);
}
