// Carries out valid requests on the backend and encodes the replies. For a synchronous backend everything is done
// synchronously, without promises. The caller turns an exception or a rejection into an error reply.

import { Buffer } from '../../util/buffer.js';
import * as c from '../../protocol/constants.js';
import type { ReplyEncoder } from '../../protocol/reply-encoder.js';
import type { Request } from '../../protocol/request-decoder.js';
import { add, type U64 } from '../../util/u64.js';
import type { BackendExtent, BackendExtents, NbdBackend } from '../backends/backend.js';
import { subtract } from '../backends/extent-map.js';
import type { ReplySink } from './reply-output.js';
import { decodeFilter, hasFilter, type Session } from './request-validation.js';

type Result = Promise<void> | undefined;

/** Maximum number of extents in one block-status chunk. The protocol allows 2^20, but clients continue anyway. */
const MAX_EXTENTS = 65536;
/** Maximum number of chunks of a read; after that, the rest is sent as data in one chunk. */
const MAX_READ_CHUNKS = 64;
/** Bytes per write of zeroes, for backends that cannot zero. */
const ZERO_PIECE = 1 << 20;

const failure = (code: string, message: string): Error => Object.assign(new Error(message), { code });

/** Also recognises thenables, such as promises of another realm. */
const isPromise = <T extends object>(value: T | Promise<T>): value is Promise<T> =>
  typeof value === 'object' && (value as unknown) !== null && 'then' in value;

const toError = (thrown: unknown): Error => (thrown instanceof Error ? thrown : new Error(String(thrown)));

/** Turns an exception into a rejection, so that calls that have already started are still waited for. */
function attempt(call: () => Promise<void> | void): Result {
  try {
    return call() ?? undefined;
  } catch (error) {
    return Promise.reject(toError(error));
  }
}

/** Runs `next` after `first`; synchronously if `first` is not a promise. */
function chain(first: Promise<void> | void, next: () => Result): Result {
  if (first === undefined) return next();
  // A backend may return a promise of another realm or a thenable of its own.
  return Promise.resolve(first).then(next);
}

export class RequestHandler {
  readonly #session: Session;
  readonly #encoder: ReplyEncoder;
  readonly #output: ReplySink;
  readonly #backend: NbdBackend;
  readonly #signal: AbortSignal;

  /** `backend` is that of the export, or one that changes what it reads and writes. */
  constructor(
    session: Session,
    encoder: ReplyEncoder,
    output: ReplySink,
    signal: AbortSignal,
    backend: NbdBackend = session.export.backend,
  ) {
    this.#session = session;
    this.#encoder = encoder;
    this.#output = output;
    this.#backend = backend;
    this.#signal = signal;
  }

  /** Carries out the request and pushes the reply; throws or rejects on failure. */
  perform(request: Request): Result {
    switch (request.type) {
      case c.NBD_CMD_READ:
        return this.#read(request);
      case c.NBD_CMD_BLOCK_STATUS:
        return this.#blockStatus(request);
      default:
        return chain(this.#change(request), () => {
          this.#output.send(this.#encoder.encodeDone(request));
          return undefined;
        });
    }
  }

  /** Carries out commands whose reply has no data. */
  #change(request: Request): Result {
    const { type, flags, offset, count, payload } = request;
    const backend = this.#backend;
    const signal = this.#signal;
    const wantsFua = (flags & c.NBD_CMD_FLAG_FUA) !== 0;
    const fua = wantsFua && backend.fua === true;
    switch (type) {
      case c.NBD_CMD_WRITE:
        if (payload === null || backend.write === undefined) throw failure('EINVAL', 'nothing to write');
        return this.#persist(backend.write(payload, offset, { fua, signal }), wantsFua);
      case c.NBD_CMD_TRIM:
        return this.#persist(backend.trim?.(offset, count, { fua, signal }), wantsFua);
      case c.NBD_CMD_WRITE_ZEROES: {
        const fast = (flags & c.NBD_CMD_FLAG_FAST_ZERO) !== 0;
        const noHole = (flags & c.NBD_CMD_FLAG_NO_HOLE) !== 0;
        if (fast && backend.fastZero !== true) throw failure('ENOTSUP', 'zeroing is not faster than writing');
        const zeroed =
          backend.zero === undefined
            ? this.#writeZeroes(offset, count)
            : backend.zero(offset, count, { fua, noHole, fast, signal });
        return this.#persist(zeroed, wantsFua);
      }
      case c.NBD_CMD_CACHE:
        return backend.cache?.(offset, count) ?? undefined;
      default:
        return backend.flush?.() ?? undefined;
    }
  }

  /** Flushes after a change with FUA, unless the backend handles FUA itself. */
  #persist(changed: Promise<void> | void, wantsFua: boolean): Result {
    if (!wantsFua || this.#backend.fua === true) return changed ?? undefined;
    return chain(changed, () => this.#backend.flush?.() ?? undefined);
  }

  async #writeZeroes(offset: U64, count: U64): Promise<void> {
    const zeroes = Buffer.alloc(count < ZERO_PIECE ? Number(count) : ZERO_PIECE);
    const end = add(offset, count);
    for (let at = offset; at < end && !this.#signal.aborted; at = add(at, ZERO_PIECE)) {
      const left = subtract(end, at);
      const piece = left < ZERO_PIECE ? zeroes.subarray(0, Number(left)) : zeroes;
      await this.#backend.write?.(piece, at, { fua: false, signal: this.#signal });
    }
  }

  #read(request: Request): Result {
    const mayFragment = this.#encoder.style !== 'simple' && (request.flags & c.NBD_CMD_FLAG_DF) === 0;
    if (!mayFragment || !this.#session.export.sparseReads) return this.#readWhole(request);
    const extents = this.#backend.extents?.(request.offset, request.count) ?? [];
    return isPromise(extents)
      ? Promise.resolve(extents).then((known) => this.#readSparse(request, known))
      : this.#readSparse(request, extents);
  }

  #readWhole(request: Request): Result {
    const bytes = this.#output.take(this.#encoder.dataPrefix + Number(request.count));
    return chain(this.#backend.read(bytes.subarray(this.#encoder.dataPrefix), request.offset), () => {
      this.#encoder.encodeData(bytes, request, request.offset, Number(request.count), true);
      this.#output.send(bytes);
      return undefined;
    });
  }

  #readSparse(request: Request, extents: Iterable<BackendExtent>): Result {
    const pairs = collect(extents, request.count, MAX_READ_CHUNKS, c.NBD_STATE_ZERO);
    const end = add(request.offset, request.count);
    const chunks: { bytes: Buffer; offset: U64; length: number; hole: boolean }[] = [];
    const reads: Promise<void>[] = [];
    let at = request.offset;
    for (let i = 0; at < end; i += 2) {
      const offset = at;
      const rest = Number(subtract(end, at));
      // Ranges without extents, because there were too many or they ended early, are read as data.
      const length = i < pairs.length ? Number(pairs[i] ?? 0) : rest;
      const hole = i < pairs.length && pairs[i + 1] === c.NBD_STATE_ZERO;
      if (!hole && length === request.count) return this.#readWhole(request);
      const bytes = hole ? EMPTY : this.#output.take(this.#encoder.dataPrefix + length);
      if (!hole) {
        const pending = attempt(() => this.#backend.read(bytes.subarray(this.#encoder.dataPrefix), offset));
        if (pending !== undefined) reads.push(pending);
      }
      chunks.push({ bytes, offset, length, hole });
      at = add(at, length);
    }
    const reply = (): void => {
      for (const [index, { bytes, offset, length, hole }] of chunks.entries()) {
        const done = index === chunks.length - 1;
        if (!hole) this.#encoder.encodeData(bytes, request, offset, length, done);
        this.#output.send(hole ? this.#encoder.encodeHole(request, offset, length, done) : bytes);
      }
    };
    if (reads.length > 0) return Promise.all(reads).then(reply);
    reply();
    return undefined;
  }

  #blockStatus(request: Request): Result {
    let ids: readonly number[] = [...this.#session.contexts.keys()];
    let count = request.count;
    if (hasFilter(request.type, request.flags)) {
      const filter = decodeFilter(request, this.#session);
      if ('code' in filter) throw failure(filter.code, filter.message);
      ({ ids, count } = filter);
    }
    const sources: BackendExtents[] = ids.map((id) => {
      const context = this.#session.export.metaContext(this.#session.contexts.get(id) ?? '');
      try {
        return context?.extents(request.offset, count) ?? [];
      } catch (error) {
        return Promise.reject(toError(error));
      }
    });
    const reply = (known: readonly Iterable<BackendExtent>[]): void => {
      const limit = (request.flags & c.NBD_CMD_FLAG_REQ_ONE) !== 0 ? 1 : MAX_EXTENTS;
      // All are collected before any is sent, so that an error in one makes the whole command fail.
      const all = known.map((extents) => collect(extents, count, limit));
      if (all.some((pairs) => pairs.length === 0)) throw failure('EIO', 'the backend returned no extents');
      for (const [index, pairs] of all.entries()) {
        this.#output.send(this.#encoder.encodeBlockStatus(request, ids[index] ?? 0, pairs, index === all.length - 1));
      }
      // A filter may contain no contexts.
      if (all.length === 0) this.#output.send(this.#encoder.encodeDone(request));
    };
    const known: Iterable<BackendExtent>[] = [];
    for (const source of sources) {
      if (isPromise(source)) return Promise.all(sources.map((extents) => Promise.resolve(extents))).then(reply);
      known.push(source);
    }
    reply(known);
    return undefined;
  }
}

const EMPTY = Buffer.alloc(0);

/** Whether a backend's number fits into 64 bits. */
function isNatural(value: unknown): boolean {
  if (typeof value === 'bigint') return value >= 0n && value <= MAX_U64_BIG;
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

const MAX_U64_BIG = (1n << 64n) - 1n;

/**
 * Returns flat pairs of length and flags (masked with `mask`) that cover at most `count` bytes: equal neighbours are
 * joined, empty runs skipped; at most `limit` pairs.
 */
export function collect(extents: Iterable<BackendExtent>, count: U64, limit: number, mask?: number): U64[] {
  const pairs: U64[] = [];
  let left = count;
  for (const extent of extents) {
    if (!isNatural(extent.length) || !isNatural(extent.flags)) {
      throw failure('EIO', `the backend returned an extent of ${String(extent.length)} bytes, ${String(extent.flags)}`);
    }
    if (extent.length <= 0) continue;
    const whole = add(extent.length, 0);
    const length = whole < left ? whole : left;
    const flags = mask === undefined ? add(extent.flags, 0) : Number(extent.flags) & mask;
    const last = pairs.length - 2;
    if (last >= 0 && pairs[last + 1] === flags) {
      pairs[last] = add(pairs[last] ?? 0, length);
    } else {
      if (pairs.length === limit * 2) break;
      pairs.push(length, flags);
    }
    left = subtract(left, length);
    if (left === 0) break;
  }
  return pairs;
}
