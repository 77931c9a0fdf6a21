// Node's Buffer, or in browsers a Uint8Array with the few methods of it that this package uses. Files that import it run
// in both; in Node it is Buffer itself, so that it costs nothing there.

import { nodeModule, TextDecoder, TextEncoder } from './platform.js';

const ENCODER = new TextEncoder();

type Encoding = 'utf8' | 'latin1' | 'hex';

function encode(text: string, encoding: Encoding): Uint8Array {
  if (encoding === 'utf8') return ENCODER.encode(text);
  const isHex = encoding === 'hex';
  const length = isHex ? text.length >> 1 : text.length;
  const unit = (at: number): number =>
    isHex ? Number.parseInt(text.slice(2 * at, 2 * at + 2), 16) : text.charCodeAt(at);
  return Uint8Array.from({ length }, (_, at) => unit(at));
}

/** Exported for its spec; everything else uses {@link Buffer}. */
export class PortableBuffer extends Uint8Array {
  static alloc(length: number): PortableBuffer {
    return new PortableBuffer(length);
  }

  static allocUnsafe(length: number): PortableBuffer {
    return new PortableBuffer(length);
  }

  static allocUnsafeSlow(length: number): PortableBuffer {
    return new PortableBuffer(length);
  }

  /** A copy of bytes or of an encoded text; a view of an ArrayBuffer. */
  static override from(source: unknown, how?: unknown, length?: number): PortableBuffer {
    const isText = typeof source === 'string';
    if (!isText && !ArrayBuffer.isView(source) && !Array.isArray(source)) {
      return new PortableBuffer(source as ArrayBuffer, how as number | undefined, length);
    }
    const bytes = isText ? encode(source, (how as Encoding | undefined) ?? 'utf8') : (source as Uint8Array);
    const copied = new PortableBuffer(bytes.length);
    copied.set(bytes);
    return copied;
  }

  static isBuffer(value: unknown): value is PortableBuffer {
    return value instanceof PortableBuffer;
  }

  static byteLength(text: string): number {
    return ENCODER.encode(text).length;
  }

  static concat(parts: readonly Uint8Array[]): PortableBuffer {
    const whole = new PortableBuffer(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      whole.set(part, at);
      at += part.length;
    }
    return whole;
  }

  #view(at: number, length: number): DataView {
    return new DataView(this.buffer, this.byteOffset + at, length);
  }

  readUInt16BE(at = 0): number {
    return this.#view(at, 2).getUint16(0);
  }

  readUInt32BE(at = 0): number {
    return this.#view(at, 4).getUint32(0);
  }

  writeUInt16BE(value: number, at = 0): number {
    this.#view(at, 2).setUint16(0, value);
    return at + 2;
  }

  writeUInt32BE(value: number, at = 0): number {
    this.#view(at, 4).setUint32(0, value);
    return at + 4;
  }

  writeBigUInt64BE(value: bigint, at = 0): number {
    this.#view(at, 8).setBigUint64(0, value);
    return at + 8;
  }

  /** Writes text as UTF-8; returns how many bytes were written. */
  write(text: string, at = 0): number {
    return ENCODER.encodeInto(text, this.subarray(at)).written;
  }

  copy(target: Uint8Array, targetStart = 0, start = 0, end = this.length): number {
    const length = Math.max(0, Math.min(end - start, target.length - targetStart));
    target.set(this.subarray(start, start + length), targetStart);
    return length;
  }

  compare(target: Uint8Array, targetStart = 0, targetEnd = target.length, start = 0, end = this.length): number {
    const [own, other] = [end - start, targetEnd - targetStart];
    for (let at = 0; at < own && at < other; at++) {
      const difference = (this[start + at] as number) - (target[targetStart + at] as number);
      if (difference !== 0) return Math.sign(difference);
    }
    return Math.sign(own - other);
  }

  equals(other: Uint8Array): boolean {
    return this.compare(other) === 0;
  }

  swap32(): this {
    return this.#swap(4);
  }

  swap64(): this {
    return this.#swap(8);
  }

  #swap(width: 4 | 8): this {
    for (let at = 0; at < this.length; at += width) this.subarray(at, at + width).reverse();
    return this;
  }

  /** Decodes the bytes; without an encoding it is Uint8Array's method, because users see these arrays as such. */
  override toString(encoding?: Encoding, start = 0, end = this.length): string {
    if (encoding === undefined) return super.toString();
    const bytes = this.subarray(start, end);
    if (encoding === 'utf8') return new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes);
    const encoded = (byte: number): string =>
      encoding === 'hex' ? byte.toString(16).padStart(2, '0') : String.fromCharCode(byte);
    let text = '';
    for (const byte of bytes) text += encoded(byte);
    return text;
  }
}

// Not the global: a page may have a Buffer of another package there.
export const Buffer = (nodeModule('node:buffer')?.Buffer ?? (PortableBuffer as unknown)) as BufferClass;

type BufferClass = typeof globalThis extends { Buffer: infer Class } ? Class : typeof PortableBuffer;

/** The same memory as a Buffer. */
export const asBuffer = (bytes: Uint8Array): Buffer =>
  Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/**
 * Buffer where the program has the types of Node, Uint8Array where it does not: declarations that use it are valid in
 * both.
 */
export type Buffer = typeof globalThis extends { Buffer: { isBuffer(value: unknown): value is infer NodeBuffer } }
  ? NodeBuffer
  : Uint8Array;

/** The same, with memory that is not shared between threads. */
export type OwnBuffer = typeof globalThis extends { Buffer: { alloc(length: number): infer NodeBuffer } }
  ? NodeBuffer
  : Uint8Array;
