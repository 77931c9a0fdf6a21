// Messages of the protocol as bytes, written by hand from proto.md: every number stands here once more, so that a
// mistake in the package's own tables or encoders cannot hide a mistake in its decoders.

export const u16 = (value: number): Buffer => {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
};
export const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};
export const u64 = (value: number | bigint): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
};
export const cat = (...parts: readonly (Uint8Array | string)[]): Buffer =>
  Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part) : part)));

// Options and replies to them.
export const OPT = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  STARTTLS: 5,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META: 9,
  SET_META: 10,
  EXTENDED: 11,
} as const;
export const ACK = 1;
export const SERVER = 2;
export const INFO = 3;
export const META = 4;
export const ERR_UNSUP = 0x80000001;
export const ERR_POLICY = 0x80000002;
export const ERR_INVALID = 0x80000003;
export const ERR_PLATFORM = 0x80000004;
export const ERR_TLS_REQD = 0x80000005;
export const ERR_UNKNOWN = 0x80000006;
export const ERR_SHUTDOWN = 0x80000007;
export const ERR_BLOCK_SIZE_REQD = 0x80000008;
export const ERR_TOO_BIG = 0x80000009;
export const ERR_EXT_HEADER_REQD = 0x8000000a;

// Transmission flags.
export const HAS_FLAGS = 0x001;
export const READ_ONLY = 0x002;
export const SEND_FLUSH = 0x004;
export const SEND_FUA = 0x008;
export const ROTATIONAL = 0x010;
export const SEND_TRIM = 0x020;
export const SEND_ZERO = 0x040;
export const SEND_DF = 0x080;
export const MULTI_CONN = 0x100;
export const SEND_CACHE = 0x400;
export const SEND_FAST_ZERO = 0x800;
export const STATUS_PAYLOAD = 0x1000;
/** Everything that a client of this package can use, but read-only, rotational and the status filter. */
export const ALL_FLAGS = 0xded;

// Commands.
export const CMD = { READ: 0, WRITE: 1, DISC: 2, FLUSH: 3, TRIM: 4, CACHE: 5, ZERO: 6, STATUS: 7 } as const;

/** The newstyle greeting. */
export const greeting = (flags = 3): Buffer => cat('NBDMAGIC', 'IHAVEOPT', u16(flags));

/** The oldstyle greeting, which opens the export at once. */
export const oldstyle = (size: number | bigint, flags: number, globalFlags = 0): Buffer =>
  cat('NBDMAGIC', u32(0x4202), u32(0x81861253), u64(size), u16(globalFlags), u16(flags), Buffer.alloc(124));

/** What a client sends for an option. */
export const option = (number: number, data: Uint8Array | string = ''): Buffer =>
  cat('IHAVEOPT', u32(number), u32(Buffer.byteLength(data)), data);

/** A reply to an option. */
export const reply = (number: number, type: number, data: Uint8Array | string = ''): Buffer =>
  cat(u32(0x3e889), u32(0x045565a9), u32(number), u32(type), u32(Buffer.byteLength(data)), data);

/** Payloads of information replies. */
export const infoExport = (size: number | bigint, flags: number): Buffer => cat(u16(0), u64(size), u16(flags));
export const infoName = (name: string): Buffer => cat(u16(1), name);
export const infoDescription = (text: string): Buffer => cat(u16(2), text);
export const infoBlockSize = (minimum: number, preferred: number, maximum: number): Buffer =>
  cat(u16(3), u32(minimum), u32(preferred), u32(maximum));
/** Payload of a reply with a metadata context. */
export const metaContext = (id: number, name: string): Buffer => cat(u32(id), name);

/** A simple reply; `data` follows a successful read. */
export const simple = (cookie: number | bigint, error = 0, data: Uint8Array | string = ''): Buffer =>
  cat(u32(0x67446698), u32(error), u64(cookie), data);

// Chunks of structured replies.
export const DONE = 1;
export const NONE = 0;
export const DATA = 1;
export const HOLE = 2;
export const STATUS = 5;
export const STATUS_EXT = 6;
export const ERROR = 0x8001;
export const ERROR_OFFSET = 0x8002;

export const chunk = (
  flags: number,
  type: number,
  cookie: number | bigint,
  payload: Uint8Array | string = '',
  length = Buffer.byteLength(payload),
): Buffer => cat(u32(0x668e33ef), u16(flags), u16(type), u64(cookie), u32(length), payload);

/** A chunk of an extended reply. */
export const extendedChunk = (
  flags: number,
  type: number,
  cookie: number | bigint,
  offset: number | bigint,
  payload: Uint8Array | string = '',
  length: number | bigint = Buffer.byteLength(payload),
): Buffer => cat(u32(0x6e8a278c), u16(flags), u16(type), u64(cookie), u64(offset), u64(length), payload);

export const dataChunk = (
  cookie: number | bigint,
  offset: number | bigint,
  data: Uint8Array | string,
  flags = DONE,
): Buffer => chunk(flags, DATA, cookie, cat(u64(offset), data));
export const holeChunk = (cookie: number | bigint, offset: number | bigint, length: number, flags = DONE): Buffer =>
  chunk(flags, HOLE, cookie, cat(u64(offset), u32(length)));
export const errorChunk = (cookie: number | bigint, error: number, message = '', flags = DONE): Buffer =>
  chunk(flags, ERROR, cookie, cat(u32(error), u16(Buffer.byteLength(message)), message));
export const statusChunk = (
  cookie: number | bigint,
  context: number,
  extents: readonly (readonly [length: number, flags: number])[],
  flags = DONE,
): Buffer =>
  chunk(flags, STATUS, cookie, cat(u32(context), ...extents.map(([length, bits]) => cat(u32(length), u32(bits)))));

// They repeat after 64 KiB.
const PATTERN = Buffer.from(Array.from({ length: 1 << 16 }, (_, i) => (7 * i + (i >> 8)) & 255));

/** The bytes of the export that raw servers here pretend to have: no two near places look alike. */
export function content(offset: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  for (let at = 0; at < length;) {
    const from = (offset + at) % PATTERN.length;
    at += PATTERN.copy(bytes, at, from, Math.min(PATTERN.length, from + length - at));
  }
  return bytes;
}

/** Errors as they are on the wire, all but ESHUTDOWN, which has rules of its own; written out here, not taken from lib/. */
export const WIRE_ERRORS = [
  [1, 'EPERM'],
  [5, 'EIO'],
  [12, 'ENOMEM'],
  [22, 'EINVAL'],
  [28, 'ENOSPC'],
  [75, 'EOVERFLOW'],
  [95, 'ENOTSUP'],
] as const;
