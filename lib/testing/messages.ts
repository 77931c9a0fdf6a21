// Builders for every message of a server; every field can be set to a wrong value. Written from the protocol's text and
// not on lib/protocol's encoders: a shared codec would hide a mistake that both sides make.

import * as c from '../protocol/constants.js';

/** A 64-bit field of a message. */
export type U64 = number | bigint;

/** Default size of the scripted export: 1 MiB. */
export const DEFAULT_SIZE = 2 ** 20;

/**
 * Default transmission flags of the scripted export: all but READ_ONLY, ROTATIONAL, RESIZE and BLOCK_STATUS_PAYLOAD.
 */
export const DEFAULT_FLAGS =
  c.NBD_FLAG_HAS_FLAGS |
  c.NBD_FLAG_SEND_FLUSH |
  c.NBD_FLAG_SEND_FUA |
  c.NBD_FLAG_SEND_TRIM |
  c.NBD_FLAG_SEND_WRITE_ZEROES |
  c.NBD_FLAG_SEND_DF |
  c.NBD_FLAG_CAN_MULTI_CONN |
  c.NBD_FLAG_SEND_CACHE |
  c.NBD_FLAG_SEND_FAST_ZERO;

/** One byte. */
export function u8(value: number): Buffer {
  return Buffer.from([value & 0xff]);
}

/** Two bytes, big-endian. */
export function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value & 0xffff);
  return bytes;
}

/** Four bytes, big-endian. */
export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
}

/** Eight bytes, big-endian; taken modulo 2^64. */
export function u64(value: U64): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt.asUintN(64, BigInt(value)));
  return bytes;
}

/** Concatenates the parts; strings are encoded as UTF-8. */
export function join(...parts: readonly (Uint8Array | string)[]): Buffer {
  return Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part) : part)));
}

/** The newstyle greeting, 18 bytes. */
export function greeting(flags = 3, magic = 'NBDMAGIC', version = 'IHAVEOPT'): Buffer {
  return join(magic, version, u16(flags));
}

/** The whole oldstyle handshake, 152 bytes. */
export function oldstyle(size: U64 = DEFAULT_SIZE, globalFlags = 0, exportFlags = DEFAULT_FLAGS): Buffer {
  const magic = join(u32(c.NBD_OLDSTYLE_MAGIC_HIGH), u32(c.NBD_OLDSTYLE_MAGIC_LOW));
  return join('NBDMAGIC', magic, u64(size), u16(globalFlags), u16(exportFlags), Buffer.alloc(124));
}

/** Fields of an option reply that are correct by default. */
export interface OptionReplyFields {
  /** Value of the length field. Default the length of the data. */
  length?: number | undefined;
  /** Value of the magic field. Default 0x3e889045565a9. */
  magic?: U64 | undefined;
}

const OPTION_REPLY_MAGIC = 0x0003_e889_0455_65a9;

/** A reply to an option: 20 bytes and the data. */
export function optionReply(
  option: number,
  type: number,
  data: Uint8Array | string = '',
  { length, magic = OPTION_REPLY_MAGIC }: OptionReplyFields = {},
): Buffer {
  const bytes = join(data);
  return join(u64(magic), u32(option), u32(type), u32(length ?? bytes.length), bytes);
}

/** The data of NBD_INFO_EXPORT, 12 bytes. */
export function exportInfo(size: U64 = DEFAULT_SIZE, flags = DEFAULT_FLAGS): Buffer {
  return join(u16(c.NBD_INFO_EXPORT), u64(size), u16(flags));
}

/** The data of NBD_INFO_BLOCK_SIZE, 14 bytes. */
export function blockSizeInfo(minimum: number, preferred: number, maximum: number): Buffer {
  return join(u16(c.NBD_INFO_BLOCK_SIZE), u32(minimum), u32(preferred), u32(maximum));
}

/** The data of one NBD_REP_META_CONTEXT. */
export function metaContext(id: number, name: string): Buffer {
  return join(u32(id), name);
}

/** A simple reply: 16 bytes and, for a read that succeeded, the data. */
export function simpleReply(
  error: number,
  cookie: U64,
  data: Uint8Array | string = '',
  magic = c.NBD_SIMPLE_REPLY_MAGIC,
): Buffer {
  return join(u32(magic), u32(error), u64(cookie), data);
}

/** Fields of a chunk that are correct by default. */
export interface ChunkFields {
  /** Value of the length field. Default the length of the payload. */
  length?: U64 | undefined;
  /** Value of the magic field. Default the magic of the chunk's kind, structured or extended. */
  magic?: number | undefined;
}

/** A chunk of a structured reply: 20 bytes and the payload. */
export function chunk(
  flags: number,
  type: number,
  cookie: U64,
  payload: Uint8Array | string = '',
  { length, magic = c.NBD_STRUCTURED_REPLY_MAGIC }: ChunkFields = {},
): Buffer {
  const bytes = join(payload);
  const declared = Number(BigInt.asUintN(32, BigInt(length ?? bytes.length)));
  return join(u32(magic), u16(flags), u16(type), u64(cookie), u32(declared), bytes);
}

/** A chunk with an extended header: 32 bytes and the payload. */
export function extendedChunk(
  flags: number,
  type: number,
  cookie: U64,
  offset: U64,
  payload: Uint8Array | string = '',
  { length, magic = c.NBD_EXTENDED_REPLY_MAGIC }: ChunkFields = {},
): Buffer {
  const bytes = join(payload);
  return join(u32(magic), u16(flags), u16(type), u64(cookie), u64(offset), u64(length ?? bytes.length), bytes);
}

const PERIOD = 0x10000;
let period: Buffer | undefined;

/**
 * Content of the scripted export: byte i is `(7 * i + (i >> 8)) & 255`. Two ranges differ unless they are a multiple of
 * 64 KiB apart.
 */
export function pattern(offset: U64, length: U64): Buffer {
  period ??= Buffer.from(Uint8Array.from({ length: PERIOD }, (_, i) => 7 * i + (i >> 8)));
  const bytes = Buffer.allocUnsafe(Number(length));
  let from = Number(BigInt.asUintN(16, BigInt(offset)));
  for (let at = 0; at < bytes.length; from = 0) at += period.copy(bytes, at, from);
  return bytes;
}
