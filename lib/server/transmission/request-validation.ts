// Validates requests against the records in protocol/commands.ts and the session's negotiated flags. Nothing is done,
// allocated or read from a backend before a request has passed.

import * as c from '../../protocol/constants.js';
import { COMMANDS, type CommandSpec, FLAG_NEEDS } from '../../protocol/commands.js';
import type { ServedSession } from '../../protocol/handshake/serve-offer.js';
import { commandFlagNames, commandName } from '../../protocol/names.js';
import type { Request } from '../../protocol/request-decoder.js';
import { add, fromHalves, isWithin, MAX_U64, type U64 } from '../../util/u64.js';
import type { ServedExport } from '../served-export.js';

export type Session = ServedSession<ServedExport>;

/** Why a request is refused: an errno name and a text. */
export interface Refusal {
  readonly code: string;
  readonly message: string;
}

interface ServedCommand {
  readonly spec: CommandSpec;
  /** Flags of all methods that use this command. */
  readonly allowedFlags: number;
}

const COMMANDS_BY_TYPE: readonly (ServedCommand | undefined)[] = ((): ServedCommand[] => {
  const table: ServedCommand[] = [];
  for (const spec of COMMANDS) {
    const known = table[spec.type];
    table[spec.type] = {
      spec: known?.spec ?? spec,
      allowedFlags: (known?.allowedFlags ?? 0) | spec.allowedFlags,
    };
  }
  return table;
})();

const refusal = (code: string, message: string): Refusal => ({ code, message });

/** Checks the header. The range of a block status with a payload is checked once the payload has been read. */
export function validate(request: Request, session: Session): Refusal | null {
  const { type, flags } = request;
  const command = COMMANDS_BY_TYPE[type];
  if (command === undefined) return refusal('EINVAL', `${commandName(type)} is unknown`);
  const { spec } = command;
  return (
    validateFlags(request, session, command.allowedFlags) ??
    validatePermission(spec, session) ??
    (spec.hasRange && !hasFilter(type, flags)
      ? validateRange(spec, request.offset, request.count, session)
      : validateNoRange(spec, request))
  );
}

/** Whether this is a block status whose payload names the contexts; its count is then the payload's length. */
export const hasFilter = (type: number, flags: number): boolean =>
  type === c.NBD_CMD_BLOCK_STATUS && (flags & c.NBD_CMD_FLAG_PAYLOAD_LEN) !== 0;

function validateFlags(request: Request, session: Session, allowedFlags: number): Refusal | null {
  const { type, flags } = request;
  const hasPayload = (flags & c.NBD_CMD_FLAG_PAYLOAD_LEN) !== 0;
  if (session.style !== 'extended') {
    if (hasPayload) return refusal('EINVAL', `${commandName(type)}: PAYLOAD_LEN without extended headers`);
  } else if (hasPayload && !(hasFilter(type, flags) && (session.flags & c.NBD_FLAG_BLOCK_STATUS_PAYLOAD) !== 0)) {
    // A write without the flag violates the protocol but is accepted, because qemu sends such writes and accepts them.
    if (type !== c.NBD_CMD_WRITE) return refusal('EINVAL', `${commandName(type)} must not have a payload`);
  }
  // "The server MUST accept all commands with this bit set" once FUA is advertised.
  const unknown = flags & ~(allowedFlags | c.NBD_CMD_FLAG_FUA);
  if (unknown !== 0) return refusal('EINVAL', `${commandName(type)}: unknown flags ${commandFlagNames(unknown)}`);
  for (const { flag, needs, lacking } of FLAG_NEEDS) {
    if ((flags & flag) !== 0 && (session.flags & needs) === 0)
      return refusal('EINVAL', `${commandName(type)}: ${lacking}`);
  }
  return null;
}

function validatePermission(spec: CommandSpec, session: Session): Refusal | null {
  if (spec.writes && (session.flags & c.NBD_FLAG_READ_ONLY) !== 0) return refusal('EPERM', 'the export is read-only');
  if ((session.flags & spec.advertisedBy) !== spec.advertisedBy) return refusal('EINVAL', spec.lacking);
  if (spec.type === c.NBD_CMD_BLOCK_STATUS && session.contexts.size === 0) {
    return refusal('EINVAL', 'no metadata context was negotiated');
  }
  return null;
}

function validateNoRange(spec: CommandSpec, request: Request): Refusal | null {
  if (spec.hasRange || (request.offset === 0 && request.count === 0)) return null;
  return refusal('EINVAL', `${commandName(spec.type)} must not have a range`);
}

function validateRange(spec: CommandSpec, offset: U64, count: U64, session: Session): Refusal | null {
  const { size, blockSize, maxPayload } = session.export;
  // Messages are built only when needed: this runs for every request.
  const refuse = (code: string, why: string): Refusal =>
    refusal(code, `${commandName(spec.type)}: ${String(count)} bytes at ${String(offset)} ${why}`);
  if (count === 0) return refusal('EINVAL', `${commandName(spec.type)}: count is 0`);
  if (!isWithin(offset, count, size)) {
    // The protocol requires EINVAL for a trim; our client reports ENOSPC, as libnbd does, before it sends one.
    const wraps = add(offset, count) > MAX_U64;
    const code = wraps || spec.type === c.NBD_CMD_TRIM ? 'EINVAL' : spec.boundsError;
    return refuse(code, `reach beyond the export of ${String(size)} bytes`);
  }
  if (!isMultiple(offset, blockSize.minimum) || !isMultiple(count, blockSize.minimum)) {
    return refuse('EINVAL', `are not aligned to ${String(blockSize.minimum)}`);
  }
  if (spec.payload !== 'none' && count > maxPayload) {
    // "The server SHOULD NOT return NBD_EOVERFLOW except as documented in response to NBD_CMD_READ".
    const code = spec.type === c.NBD_CMD_READ && session.style !== 'simple' ? 'EOVERFLOW' : 'EINVAL';
    return refuse(code, `exceed the limit of ${String(maxPayload)}`);
  }
  return null;
}

const isMultiple = (value: U64, of: number): boolean =>
  typeof value === 'number' ? value % of === 0 : value % BigInt(of) === 0n;

/** The content of a block status's payload: the length of the range and the IDs of the requested contexts. */
export interface Filter {
  readonly count: U64;
  readonly ids: readonly number[];
}

/** Maximum payload of a block status: the length, and each context once. */
export const filterLimit = (session: Session): number => 8 + session.contexts.size * 4;

/**
 * Decodes the payload of a block status; returns a refusal if it is malformed or has an unknown or repeated context.
 */
export function decodeFilter(request: Request, session: Session): Filter | Refusal {
  const { payload } = request;
  if (payload === null || payload.length < 8 || payload.length % 4 !== 0) {
    return refusal('EINVAL', `invalid filter of ${String(request.payloadLength)} bytes`);
  }
  const count = fromHalves(payload.readUInt32BE(0), payload.readUInt32BE(4));
  const ids: number[] = [];
  for (let at = 8; at < payload.length; at += 4) {
    const id = payload.readUInt32BE(at);
    if (!session.contexts.has(id) || ids.includes(id)) {
      return refusal('EINVAL', `metadata context ${String(id)} was not negotiated, or is repeated`);
    }
    ids.push(id);
  }
  const spec = COMMANDS_BY_TYPE[c.NBD_CMD_BLOCK_STATUS]?.spec;
  const beyond =
    spec === undefined ? null : validateRange({ ...spec, payload: 'none' }, request.offset, count, session);
  return beyond ?? { count, ids };
}
