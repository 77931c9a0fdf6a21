// One export as it is served: a backend, the user's options, and the resulting transmission flags.

import { Buffer } from '../util/buffer.js';
import * as c from '../protocol/constants.js';
import type { ExportOffer } from '../protocol/handshake/serve-offer.js';
import type { ReplyStyle } from '../protocol/reply-encoder.js';
import {
  aBoolean,
  aFunction,
  anObject,
  aString,
  checkOptions,
  oneOf,
  type OptionCheck,
  type OptionTable,
  refuse,
  shown,
} from '../util/option-checks.js';
import type { U64 } from '../util/u64.js';
import { alignedExtents } from './backends/aligned-extents.js';
import type { BackendExtents, BlockSize, NbdBackend } from './backends/backend.js';
import { aBlockSize, checkSize } from './block-size.js';

/** Provides block status for one metadata context; an {@link ExtentMap} implements it. */
export interface MetaContext {
  /** Flags need 64 bits: the context is only offered to clients with extended headers. Default false. */
  readonly wide?: boolean | undefined;
  /** Returns extents from `offset` on, which the server limits to `count` bytes. */
  extents(offset: U64, count: U64): BackendExtents;
}

/** Transmission flags to set or clear regardless of the backend. Default for each: what the backend supports. */
export interface FlagOverrides {
  /** NBD_FLAG_SEND_FLUSH: the flush command. */
  readonly flush?: boolean | undefined;
  /** NBD_FLAG_SEND_FUA: the flag NBD_CMD_FLAG_FUA. */
  readonly fua?: boolean | undefined;
  /** NBD_FLAG_ROTATIONAL: seeking is slow. */
  readonly rotational?: boolean | undefined;
  /** NBD_FLAG_SEND_TRIM: the trim command. */
  readonly trim?: boolean | undefined;
  /** NBD_FLAG_SEND_WRITE_ZEROES: the command NBD_CMD_WRITE_ZEROES. */
  readonly zero?: boolean | undefined;
  /** NBD_FLAG_SEND_FAST_ZERO: the flag NBD_CMD_FLAG_FAST_ZERO. */
  readonly fastZero?: boolean | undefined;
  /** NBD_FLAG_SEND_DF: the flag NBD_CMD_FLAG_DF. */
  readonly df?: boolean | undefined;
  /** NBD_FLAG_CAN_MULTI_CONN: several connections see each other's writes after a flush. */
  readonly multiConn?: boolean | undefined;
  /** NBD_FLAG_SEND_CACHE: the cache command. */
  readonly cache?: boolean | undefined;
  /** NBD_FLAG_BLOCK_STATUS_PAYLOAD: block status for some of the contexts. */
  readonly blockStatusPayload?: boolean | undefined;
}

/** An export and its presentation to clients. */
export interface NbdExportOptions {
  /** The content. */
  readonly backend: NbdBackend;
  /** Text for NBD_OPT_LIST and NBD_INFO_DESCRIPTION, at most 4096 bytes. Default `''`. */
  readonly description?: string | undefined;
  /** Refuses writes with `EPERM`, even if the backend supports them. Default false. */
  readonly readOnly?: boolean | undefined;
  /**
   * Transmission flags to override. With a flag set to true for something that the backend lacks, the command succeeds
   * without an effect (flush, trim, cache) or fails with `ENOTSUP` (fastZero); with false it fails with `EINVAL`.
   */
  readonly flags?: FlagOverrides | undefined;
  /** Block sizes to advertise. Default the backend's, or else 1, 4096 and the server's `maxPayload`. */
  readonly blockSize?: BlockSize | undefined;
  /** Refuses clients that do not request the block sizes (NBD_REP_ERR_BLOCK_SIZE_REQD). Default false. */
  readonly requireBlockSize?: boolean | undefined;
  /** Hides the export from clients without TLS if the server's `tls` is `'on'`. Default false. */
  readonly requireTls?: boolean | undefined;
  /** Contexts besides `base:allocation`, by full name such as `qemu:dirty-bitmap:b0`. Default none. */
  readonly metaContexts?: Readonly<Record<string, MetaContext>> | undefined;
  /** Whether `base:allocation` is offered. Default true. */
  readonly baseAllocation?: boolean | undefined;
  /**
   * Whether structured reads send runs of zeroes as holes, as far as the backend's extents() reports them. Default the
   * backend's `sparseReads`, or else true.
   */
  readonly sparseReads?: boolean | undefined;
  /**
   * What happens to a write above the maximum block size, or `maxPayload` of the server: `refuse` replies with
   * `EINVAL`; `disconnect` closes the connection without a reply, as nbdkit does. Default `refuse`; above 32 MiB and
   * the maximum, the connection is always closed.
   */
  readonly oversizedWrites?: 'refuse' | 'disconnect' | undefined;
}

const aShortString: OptionCheck<string> = (where, value) => {
  const text = aString(where, value);
  const length = Buffer.byteLength(text);
  if (length > c.MAX_STRING) throw refuse(where, `is ${length} bytes long, the limit is ${c.MAX_STRING}`);
  return text;
};

const FLAGS: OptionTable<FlagOverrides> = {
  flush: aBoolean,
  fua: aBoolean,
  rotational: aBoolean,
  trim: aBoolean,
  zero: aBoolean,
  fastZero: aBoolean,
  df: aBoolean,
  multiConn: aBoolean,
  cache: aBoolean,
  blockStatusPayload: aBoolean,
};

const someMetaContexts: OptionCheck<Readonly<Record<string, MetaContext>>> = (where, value) => {
  for (const [name, context] of Object.entries(anObject(where, value))) {
    aShortString(`${where}: name`, name);
    const { extents, wide } = anObject(`${where}: ${shown(name)}`, context) as Partial<MetaContext>;
    aFunction(`${where}: ${shown(name)}: extents`, extents);
    if (wide !== undefined) aBoolean(`${where}: ${shown(name)}: wide`, wide);
  }
  return value as Readonly<Record<string, MetaContext>>;
};

const OPTIONS: OptionTable<NbdExportOptions> = {
  backend: (where, value) => checkBackend(where, value),
  description: aShortString,
  readOnly: aBoolean,
  flags: (where, value) => checkOptions(where, value, FLAGS),
  blockSize: aBlockSize,
  requireBlockSize: aBoolean,
  requireTls: aBoolean,
  metaContexts: someMetaContexts,
  baseAllocation: aBoolean,
  sparseReads: aBoolean,
  oversizedWrites: oneOf('refuse', 'disconnect'),
};

const BACKEND: Readonly<Record<keyof NbdBackend, OptionCheck>> = {
  size: checkSize,
  readOnly: aBoolean,
  blockSize: aBlockSize,
  fua: aBoolean,
  copiesData: aBoolean,
  fastZero: aBoolean,
  multiConn: aBoolean,
  rotational: aBoolean,
  sparseReads: aBoolean,
  read: aFunction,
  write: aFunction,
  flush: aFunction,
  trim: aFunction,
  zero: aFunction,
  cache: aFunction,
  extents: aFunction,
  close: aFunction,
};

/** A backend may have further properties, but none whose name differs from one of ours only in case. */
function checkBackend(where: string, value: unknown): NbdBackend {
  const backend = anObject(where, value) as Record<string, unknown>;
  for (const [key, check] of Object.entries(BACKEND)) {
    if (backend[key] !== undefined || key === 'size' || key === 'read') check(`${where}: ${key}`, backend[key]);
  }
  const known = new Map(Object.keys(BACKEND).map((key) => [key.toLowerCase(), key]));
  for (const key of Object.keys(backend)) {
    const meant = known.get(key.toLowerCase());
    if (meant !== undefined && meant !== key)
      throw refuse(where, `unknown property ${shown(key)}: did you mean ${meant}?`);
  }
  return value as NbdBackend;
}

export class ServedExport implements ExportOffer {
  readonly name: string;
  readonly description: string;
  readonly backend: NbdBackend;
  readonly size: U64;
  readonly readOnly: boolean;
  readonly blockSize: BlockSize;
  /** Maximum payload of reads and writes: the advertised maximum, or the server's own limit if lower. */
  readonly maxPayload: number;
  readonly requireBlockSize: boolean;
  readonly requireTls: boolean;
  readonly sparseReads: boolean;
  /** Whether a write above `maxPayload` ends the connection. */
  readonly disconnectsLargeWrites: boolean;
  readonly #metaContexts: ReadonlyMap<string, MetaContext>;
  readonly #overrides: FlagOverrides;

  /** Throws an NbdStrictError (`EINVAL`) that names the export and the key. */
  constructor(name: string, entry: NbdExportOptions, maxPayload: number) {
    const where = `NbdServer: export ${shown(name)}`;
    aShortString(`${where}: export name`, name);
    const options = checkOptions(where, entry, OPTIONS);
    const { backend } = options;
    if (backend === undefined) throw refuse(where, 'backend is missing');
    this.name = name;
    this.description = options.description ?? '';
    this.backend = backend;
    this.size = checkSize(`${where}: size`, backend.size);
    this.readOnly = options.readOnly === true || backend.readOnly === true || backend.write === undefined;
    this.blockSize = options.blockSize ??
      backend.blockSize ?? { minimum: 1, preferred: 4096, maximum: Math.max(maxPayload, 4096) };
    this.maxPayload = Math.min(this.blockSize.maximum, maxPayload);
    this.requireBlockSize = options.requireBlockSize === true;
    this.requireTls = options.requireTls === true;
    this.sparseReads = (options.sparseReads ?? backend.sparseReads ?? true) && backend.extents !== undefined;
    this.disconnectsLargeWrites = options.oversizedWrites === 'disconnect';
    const metaContexts = new Map<string, MetaContext>();
    if (options.baseAllocation !== false) {
      metaContexts.set(c.NBD_CONTEXT_BASE_ALLOCATION, allocation(backend, this.blockSize.minimum));
    }
    for (const [context, source] of Object.entries(options.metaContexts ?? {})) {
      metaContexts.set(context, source);
    }
    this.#metaContexts = metaContexts;
    this.#overrides = options.flags ?? {};
  }

  contextNames(extended: boolean): readonly string[] {
    return [...this.#metaContexts].filter(([, context]) => extended || context.wide !== true).map(([name]) => name);
  }

  metaContext(name: string): MetaContext | undefined {
    return this.#metaContexts.get(name);
  }

  transmissionFlags(style: ReplyStyle, hasContexts: boolean): number {
    const { backend, readOnly } = this;
    const set = this.#overrides;
    const canFlush = set.flush ?? backend.flush !== undefined;
    const canZero = set.zero ?? !readOnly;
    let flags = c.NBD_FLAG_HAS_FLAGS;
    const advertise = (flag: number, on: boolean): void => {
      if (on) flags |= flag;
    };
    advertise(c.NBD_FLAG_READ_ONLY, readOnly);
    advertise(c.NBD_FLAG_SEND_FLUSH, canFlush);
    advertise(c.NBD_FLAG_SEND_FUA, set.fua ?? (!readOnly && (backend.fua === true || backend.flush !== undefined)));
    advertise(c.NBD_FLAG_ROTATIONAL, set.rotational ?? backend.rotational === true);
    advertise(c.NBD_FLAG_SEND_TRIM, set.trim ?? (!readOnly && backend.trim !== undefined));
    advertise(c.NBD_FLAG_SEND_WRITE_ZEROES, canZero);
    // Zeroing by writes is never fast, but the flag only requires that this fails at once.
    const canFast = set.fastZero ?? (backend.zero === undefined || backend.fastZero === true);
    advertise(c.NBD_FLAG_SEND_FAST_ZERO, canZero && canFast);
    advertise(c.NBD_FLAG_SEND_DF, style !== 'simple' && set.df !== false);
    advertise(c.NBD_FLAG_CAN_MULTI_CONN, set.multiConn ?? backend.multiConn !== false);
    advertise(c.NBD_FLAG_SEND_CACHE, set.cache ?? backend.cache !== undefined);
    const canFilter = style === 'extended' && hasContexts && set.blockStatusPayload !== false;
    advertise(c.NBD_FLAG_BLOCK_STATUS_PAYLOAD, canFilter);
    return flags;
  }
}

/** `base:allocation` of a backend: its extents in whole blocks, or one run of data. */
function allocation(backend: NbdBackend, minimum: number): MetaContext {
  return {
    extents: (offset, count) => {
      const extents = backend.extents?.(offset, count) ?? [{ length: count, flags: 0 }];
      return minimum === 1 ? extents : alignedExtents(extents, minimum);
    },
  };
}
