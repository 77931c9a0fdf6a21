// Maps numbers to their names in proto.md, for messages, and errno names to and from their wire numbers.

import { Buffer } from '../util/buffer.js';
import { escapeByte, visible } from '../util/visible.js';
import * as c from './constants.js';

const prefixed = (prefix: string, skip?: string): ReadonlyMap<number, string> =>
  new Map(
    Object.entries(c)
      .flatMap(([name, value]) =>
        name.startsWith(prefix) && !(skip !== undefined && name.startsWith(skip)) && typeof value === 'number'
          ? [[value, name] as const]
          : [],
      )
      // A module's entries are in alphabetical order; flags are named from the lowest bit up.
      .sort(([a], [b]) => a - b),
  );

const OPTIONS = prefixed('NBD_OPT_');
const REPLIES = prefixed('NBD_REP_', 'NBD_REP_MAGIC');
const INFOS = prefixed('NBD_INFO_');
const COMMANDS = prefixed('NBD_CMD_', 'NBD_CMD_FLAG_');
const COMMAND_FLAGS = prefixed('NBD_CMD_FLAG_');
const CHUNKS = prefixed('NBD_REPLY_TYPE_', 'NBD_REPLY_TYPE_FLAG_');

const hex = (n: number): string => `0x${n.toString(16)}`;

export const optionName = (n: number): string => OPTIONS.get(n) ?? `option ${n}`;
export const replyName = (n: number): string => REPLIES.get(n) ?? `reply type ${hex(n)}`;
export const infoName = (n: number): string => INFOS.get(n) ?? `information type ${n}`;
export const commandName = (n: number): string => COMMANDS.get(n) ?? `command ${n}`;
export const chunkName = (n: number): string => CHUNKS.get(n) ?? `chunk type ${hex(n)}`;

/** The names of the flags, such as `'FUA|NO_HOLE'`; unknown bits are in hexadecimal. */
export function commandFlagNames(flags: number): string {
  const parts: string[] = [];
  let rest = flags;
  for (const [bit, name] of COMMAND_FLAGS) {
    if ((rest & bit) !== 0) {
      parts.push(name.slice('NBD_CMD_FLAG_'.length));
      rest &= ~bit;
    }
  }
  if (rest !== 0) parts.push(hex(rest >>> 0));
  return parts.join('|');
}

const WIRE_ERRORS: ReadonlyMap<number, string> = new Map([
  [c.NBD_EPERM, 'EPERM'],
  [c.NBD_EIO, 'EIO'],
  [c.NBD_ENOMEM, 'ENOMEM'],
  [c.NBD_EINVAL, 'EINVAL'],
  [c.NBD_ENOSPC, 'ENOSPC'],
  [c.NBD_EOVERFLOW, 'EOVERFLOW'],
  [c.NBD_ENOTSUP, 'ENOTSUP'],
  [c.NBD_ESHUTDOWN, 'ESHUTDOWN'],
]);
const WIRE_NUMBERS: ReadonlyMap<string, number> = new Map([...WIRE_ERRORS].map(([number, name]) => [name, number]));

/** The errno name of a wire error; the protocol requires EINVAL for unknown numbers. */
export const errorName = (wire: number): string => WIRE_ERRORS.get(wire) ?? 'EINVAL';

/** The wire number of an errno name, as a server sends it; EIO if the protocol has no number for it. */
export const wireError = (code: string): number => WIRE_NUMBERS.get(code) ?? c.NBD_EIO;

/** Descriptions that accompany the errno name in messages. */
const DESCRIPTIONS: Readonly<Record<string, string>> = {
  EPERM: 'Operation not permitted',
  EIO: 'Input/output error',
  ENOMEM: 'Cannot allocate memory',
  EINVAL: 'Invalid argument',
  ENOSPC: 'No space left on device',
  EOVERFLOW: 'Value too large for defined data type',
  ENOTSUP: 'Operation not supported',
  ESHUTDOWN: 'Server is shutting down',
};

export const describeError = (code: string): string => DESCRIPTIONS[code] ?? code;

/**
 * Makes a peer's text safe for a message or a terminal: control characters, bytes that are not UTF-8 and Unicode's
 * direction and line controls become \xNN. Truncated to `limit` bytes.
 */
export function printable(bytes: Uint8Array, limit = 512): string {
  const cut = bytes.length > limit ? bytes.subarray(0, limit) : bytes;
  const text = Buffer.from(cut.buffer, cut.byteOffset, cut.byteLength).toString('utf8');
  let out = '';
  if (text.includes('\uFFFD')) {
    for (const byte of cut) out += byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : escapeByte(byte);
  } else {
    out = visible(text);
  }
  return bytes.length > limit ? `${out}…` : out;
}

/** Enough for a path, a name of 4096 bytes or a few lines of a program's output. */
const MAX_TEXT = 8192;

/** The same for text that is already decoded, from a peer or a URI. */
export const printableText = (text: string): string => printable(Buffer.from(text), MAX_TEXT);

/** Replaces a secret in a peer's text. Must be done before escaping, or the secret might not be found. */
export function replaceBytes(bytes: Uint8Array, from: string, to: string): Buffer {
  const latin1 = (text: string): string => Buffer.from(text).toString('latin1');
  return Buffer.from(Buffer.from(bytes).toString('latin1').replaceAll(latin1(from), latin1(to)), 'latin1');
}
