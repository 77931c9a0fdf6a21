// One export as it is served: a backend, what the user set about it, and the transmission flags that follow.

import { NbdError } from '../errors.js';
import * as c from '../protocol/constants.js';
import type { ExportOffer } from '../protocol/handshake/serve-offer.js';
import type { ReplyStyle } from '../protocol/reply-encoder.js';
import { add, type U64 } from '../util/u64.js';
import type { BackendExtents, BlockSize, NbdBackend } from './backend.js';

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
  /** Whether structured reads send runs of zeroes as holes, as far as the backend's extents() knows them; true. */
  readonly sparseReads?: boolean;
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

  constructor(name: string, options: NbdExportOptions, maxPayload: number) {
    const { backend } = options;
    checkString('export name', name);
    checkString('description', options.description ?? '');
    this.name = name;
    this.description = options.description ?? '';
    this.backend = backend;
    this.size = checkSize(backend.size);
    this.readOnly = options.readOnly === true || backend.readOnly === true || backend.write === undefined;
    this.blockSize = options.blockSize ??
      backend.blockSize ?? { minimum: 1, preferred: 4096, maximum: Math.max(maxPayload, 4096) };
    this.maxPayload = Math.min(this.blockSize.maximum, maxPayload);
    this.requireBlockSize = options.requireBlockSize === true;
    this.requireTls = options.requireTls === true;
    this.sparseReads = options.sparseReads !== false && backend.extents !== undefined;
    const metaContexts = new Map<string, MetaContext>();
    if (options.baseAllocation !== false) metaContexts.set(c.NBD_CONTEXT_BASE_ALLOCATION, allocation(backend));
    for (const [context, source] of Object.entries(options.metaContexts ?? {})) {
      checkString('metadata context name', context);
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

/** `base:allocation` of a backend: its own extents, or one run of data. */
function allocation(backend: NbdBackend): MetaContext {
  return {
    extents: (offset, count) => backend.extents?.(offset, count) ?? [{ length: count, flags: 0 }],
  };
}

function checkString(what: string, value: string): void {
  if (Buffer.byteLength(value) > c.MAX_STRING) {
    throw new NbdError(`${what} is longer than ${String(c.MAX_STRING)} bytes`, { code: 'EINVAL' });
  }
}

function checkSize(size: number | bigint): U64 {
  const valid = typeof size === 'bigint' ? size >= 0n && size < 1n << 64n : Number.isSafeInteger(size) && size >= 0;
  if (!valid) throw new NbdError(`export size ${String(size)} is not a 64-bit number of bytes`, { code: 'EINVAL' });
  return add(size, 0);
}
