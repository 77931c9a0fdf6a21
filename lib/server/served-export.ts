// One export as it is served: a backend, what the user set about it, and the transmission flags that follow.

import * as c from '../protocol/constants.js';
import type { ExportOffer } from '../protocol/handshake/serve-offer.js';
import type { ReplyStyle } from '../protocol/reply-encoder.js';
import {
  aBoolean,
  aFunction,
  anObject,
  aString,
  checkOptions,
  type OptionCheck,
  type OptionTable,
  refuse,
  shown,
} from '../util/option-checks.js';
import type { U64 } from '../util/u64.js';
import { alignedExtents } from './backends/aligned-extents.js';
import type { BackendExtents, BlockSize, NbdBackend } from './backends/backend.js';
import { aBlockSize, checkSize } from './block-size.js';

/** Answers block status for one metadata context; an ExtentMap is one. */
export interface MetaContext {
  /** Flags need 64 bits, so that only clients with extended headers are offered it. */
  readonly wide?: boolean;
  /** Runs from `offset` on, which the server cuts to `count` bytes. */
  extents(offset: U64, count: U64): BackendExtents;
}

/** Transmission flags to set or clear whatever the backend has; those left out follow the backend. */
export interface FlagOverrides {
  readonly flush?: boolean;
  readonly fua?: boolean;
  readonly rotational?: boolean;
  readonly trim?: boolean;
  /** NBD_CMD_WRITE_ZEROES. */
  readonly zero?: boolean;
  readonly fastZero?: boolean;
  readonly df?: boolean;
  readonly multiConn?: boolean;
  readonly cache?: boolean;
  readonly blockStatusPayload?: boolean;
}

/** An export and how it is shown. */
export interface NbdExportOptions {
  readonly backend: NbdBackend;
  /** Text for NBD_OPT_LIST and NBD_INFO_DESCRIPTION. */
  readonly description?: string;
  /** Refuses writes with `EPERM`, also where the backend could take them. */
  readonly readOnly?: boolean;
  /**
   * A flag set to true for something that the backend lacks makes the command succeed without an effect (flush, trim,
   * cache) or fail with `ENOTSUP` (fastZero); one set to false makes it fail with `EINVAL`.
   */
  readonly flags?: FlagOverrides;
  /** Overrides the backend's. Without either: 1, 4096 and the server's `maxPayload`. */
  readonly blockSize?: BlockSize;
  /** Refuses clients that do not ask for the block sizes (NBD_REP_ERR_BLOCK_SIZE_REQD). */
  readonly requireBlockSize?: boolean;
  /** Hides the export from clients without TLS, when the server's `tls` is `'on'`. */
  readonly requireTls?: boolean;
  /** Contexts besides `base:allocation`, by full name such as `qemu:dirty-bitmap:b0`. */
  readonly metaContexts?: Readonly<Record<string, MetaContext>>;
  /** Whether `base:allocation` is offered; true unless set. */
  readonly baseAllocation?: boolean;
  /**
   * Whether structured reads send runs of zeroes as holes, as far as the backend's extents() knows them. Default: the
   * backend's `sparseReads`, or true.
   */
  readonly sparseReads?: boolean;
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

/** A backend may have properties of its own, but none that differs from one of ours in nothing but its case. */
function checkBackend(where: string, value: unknown): NbdBackend {
  const backend = anObject(where, value) as Record<string, unknown>;
  for (const [key, check] of Object.entries(BACKEND)) {
    if (backend[key] !== undefined || key === 'size' || key === 'read') check(`${where}: ${key}`, backend[key]);
  }
  const known = new Map(Object.keys(BACKEND).map((key) => [key.toLowerCase(), key]));
  for (const key of Object.keys(backend)) {
    const meant = known.get(key.toLowerCase());
    if (meant !== undefined && meant !== key) throw refuse(where, `unknown property ${shown(key)}; ${meant} is meant`);
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
  /** The longest payload that is taken and given: the advertised maximum, or the server's own limit if lower. */
  readonly maxPayload: number;
  readonly requireBlockSize: boolean;
  readonly requireTls: boolean;
  readonly sparseReads: boolean;
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
    // Zeroes by writes are never fast, and saying so at once is all that the flag asks for.
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

/** `base:allocation` of a backend: its own extents in whole blocks, or one run of data. */
function allocation(backend: NbdBackend, minimum: number): MetaContext {
  return {
    extents: (offset, count) => {
      const extents = backend.extents?.(offset, count) ?? [{ length: count, flags: 0 }];
      return minimum === 1 ? extents : alignedExtents(extents, minimum);
    },
  };
}
