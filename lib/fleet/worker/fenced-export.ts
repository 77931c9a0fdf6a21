// An export that can be written to only while a lease holds: a process that was stopped and comes back has its lease
// checked before the next request leaves.

import type { ExportLike } from '../../bulk/facts.js';
import type { ByteCount } from '../../client/export.js';
import type { Lease } from './lease.js';

export class FencedExport implements ExportLike {
  readonly #to: ExportLike;
  readonly #lease: Lease;

  constructor(to: ExportLike, lease: Lease) {
    this.#to = to;
    this.#lease = lease;
  }

  getSize(): bigint {
    return this.#to.getSize();
  }

  getBlockSize(sizeType: number): number {
    return this.#to.getBlockSize(sizeType);
  }

  getExtendedHeadersNegotiated(): boolean {
    return this.#to.getExtendedHeadersNegotiated();
  }

  getCanonicalExportName(): string {
    return this.#to.getCanonicalExportName();
  }

  isReadOnly(): boolean {
    return this.#to.isReadOnly();
  }

  canFlush(): boolean {
    return this.#to.canFlush();
  }

  canZero(): boolean {
    return this.#to.canZero();
  }

  canMultiConn(): boolean {
    return this.#to.canMultiConn();
  }

  canMetaContext(name: string): boolean {
    return this.#to.canMetaContext(name);
  }

  async cache(count: ByteCount, offset: ByteCount, flags?: number, signal?: AbortSignal): Promise<void> {
    return this.#to.cache(count, offset, flags, signal);
  }

  async preadInto(buffer: Uint8Array, offset: ByteCount, flags?: number, signal?: AbortSignal): Promise<void> {
    return this.#to.preadInto(buffer, offset, flags, signal);
  }

  async pwrite(buffer: Uint8Array, offset: ByteCount, flags?: number, signal?: AbortSignal): Promise<void> {
    this.#lease.check();
    return this.#to.pwrite(buffer, offset, flags, signal);
  }

  async zero(count: ByteCount, offset: ByteCount, flags?: number, signal?: AbortSignal): Promise<void> {
    this.#lease.check();
    return this.#to.zero(count, offset, flags, signal);
  }

  async flush(flags?: number, signal?: AbortSignal): Promise<void> {
    this.#lease.check();
    return this.#to.flush(flags, signal);
  }

  get blockStatus64(): ExportLike['blockStatus64'] {
    // Overloaded: bound, it keeps all of its forms.
    return this.#to.blockStatus64.bind(this.#to);
  }
}
