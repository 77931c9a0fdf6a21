// Checks what a client sends against the protocol. Each function returns descriptions of the violations.

import * as c from '../protocol/constants.js';
import type { ReceivedCommand, ReceivedOption } from './recording.js';
import type { ReplyMode } from './steps.js';

/** Options that must not have data. */
const WITHOUT_DATA = new Set([
  c.NBD_OPT_ABORT,
  c.NBD_OPT_LIST,
  c.NBD_OPT_STARTTLS,
  c.NBD_OPT_STRUCTURED_REPLY,
  c.NBD_OPT_EXTENDED_HEADERS,
]);

/** The client flags must be a subset of the offered ones. */
export function checkClientFlags(clientFlags: number, offered: number): string[] {
  const extra = clientFlags & ~(offered & 3);
  return extra === 0 ? [] : [`client flags 0x${extra.toString(16)} that were not offered`];
}

export function checkOption({ option, data }: ReceivedOption, hasTls: boolean, isExtended: boolean): string[] {
  const found: string[] = [];
  if (WITHOUT_DATA.has(option) && data.length > 0) found.push(`option ${option} with ${data.length} bytes of data`);
  if (option === c.NBD_OPT_STARTTLS && hasTls) found.push('STARTTLS inside TLS');
  if (option === c.NBD_OPT_EXPORT_NAME && isExtended) found.push('EXPORT_NAME after extended headers');
  if (option === c.NBD_OPT_INFO || option === c.NBD_OPT_GO) found.push(...checkInfoRequests(data));
  return found;
}

/** The information requests of INFO and GO: well formed and without duplicates. */
function checkInfoRequests(data: Buffer): string[] {
  if (data.length < 6) return ['INFO or GO shorter than 6 bytes'];
  const at = 4 + data.readUInt32BE(0);
  if (at + 2 > data.length || at + 2 + 2 * data.readUInt16BE(at) !== data.length) return ['INFO or GO of wrong length'];
  const requests: number[] = [];
  for (let next = at + 2; next < data.length; next += 2) requests.push(data.readUInt16BE(next));
  return new Set(requests).size === requests.length ? [] : ['an information request twice'];
}

/** Flags that each command may have. */
const COMMAND_FLAGS: ReadonlyMap<number, number> = new Map([
  [c.NBD_CMD_READ, c.NBD_CMD_FLAG_DF],
  [c.NBD_CMD_WRITE, c.NBD_CMD_FLAG_FUA | c.NBD_CMD_FLAG_PAYLOAD_LEN],
  [c.NBD_CMD_DISC, 0],
  [c.NBD_CMD_FLUSH, 0],
  [c.NBD_CMD_TRIM, c.NBD_CMD_FLAG_FUA],
  [c.NBD_CMD_CACHE, 0],
  [c.NBD_CMD_WRITE_ZEROES, c.NBD_CMD_FLAG_FUA | c.NBD_CMD_FLAG_NO_HOLE | c.NBD_CMD_FLAG_FAST_ZERO],
  [c.NBD_CMD_BLOCK_STATUS, c.NBD_CMD_FLAG_REQ_ONE | c.NBD_CMD_FLAG_PAYLOAD_LEN],
]);

/** Commands without a range, whose offset and length must be 0. */
const WITHOUT_RANGE = new Set([c.NBD_CMD_DISC, c.NBD_CMD_FLUSH]);

/** Checks a command's header against the negotiated mode. */
export function checkCommand(command: ReceivedCommand, mode: ReplyMode): string[] {
  const { type, flags, offset, length, extended } = command;
  const found: string[] = [];
  if (extended !== (mode === 'extended')) found.push(`a${extended ? 'n extended' : ' compact'} header in ${mode} mode`);
  const allowed = COMMAND_FLAGS.get(type);
  if (allowed === undefined) found.push(`unknown command ${type}`);
  else if ((flags & ~allowed) !== 0) found.push(`command ${type} with flags 0x${flags.toString(16)}`);
  const hasPayloadFlag = (flags & c.NBD_CMD_FLAG_PAYLOAD_LEN) !== 0;
  if (type === c.NBD_CMD_WRITE && hasPayloadFlag !== extended) {
    found.push(extended ? 'an extended write without PAYLOAD_LEN' : 'PAYLOAD_LEN in a compact header');
  }
  if (WITHOUT_RANGE.has(type)) {
    if (offset !== 0n || length !== 0n) found.push(`command ${type} with an offset or a length`);
  } else if (length === 0n) found.push(`command ${type} of length 0`);
  return found;
}
