// The correct replies of a scripted peer: to options and to commands, in the negotiated reply mode.

import * as c from '../protocol/constants.js';
import {
  blockSizeInfo,
  chunk,
  exportInfo,
  extendedChunk,
  join,
  metaContext,
  optionReply,
  pattern,
  simpleReply,
  u16,
  u32,
  u64,
} from './messages.js';
import type { ReceivedCommand, ReceivedOption } from './recording.js';
import type { Plan } from './script.js';
import type { ReplyMode } from './steps.js';

/** The correct reply to an option. */
export function optionAnswer({ option }: ReceivedOption, plan: Plan, clientFlags: number): Buffer {
  const acknowledge = optionReply(option, c.NBD_REP_ACK);
  const refuse = optionReply(option, c.NBD_REP_ERR_UNSUP);
  switch (option) {
    case c.NBD_OPT_ABORT:
      return acknowledge;
    case c.NBD_OPT_EXPORT_NAME: {
      const zeroes = (clientFlags & c.NBD_FLAG_C_NO_ZEROES) === 0 ? 124 : 0;
      return join(u64(plan.size), u16(plan.flags), Buffer.alloc(zeroes));
    }
    case c.NBD_OPT_LIST: {
      const names = plan.exports.map((name) => {
        const bytes = Buffer.from(name);
        return optionReply(option, c.NBD_REP_SERVER, join(u32(bytes.length), bytes));
      });
      return join(...names, acknowledge);
    }
    case c.NBD_OPT_INFO:
    case c.NBD_OPT_GO:
      return join(
        optionReply(option, c.NBD_REP_INFO, exportInfo(plan.size, plan.flags)),
        plan.blockSize === undefined ? '' : optionReply(option, c.NBD_REP_INFO, blockSizeInfo(...plan.blockSize)),
        acknowledge,
      );
    case c.NBD_OPT_STRUCTURED_REPLY:
      return plan.structuredReplies ? acknowledge : refuse;
    case c.NBD_OPT_EXTENDED_HEADERS:
      return plan.extendedHeaders ? acknowledge : refuse;
    case c.NBD_OPT_LIST_META_CONTEXT:
    case c.NBD_OPT_SET_META_CONTEXT:
      return plan.structuredReplies
        ? join(optionReply(option, c.NBD_REP_META_CONTEXT, metaContext(1, c.NBD_CONTEXT_BASE_ALLOCATION)), acknowledge)
        : refuse;
    default:
      return refuse;
  }
}

/** The state that a correct reply to a command depends on. */
export interface AnswerContext {
  readonly mode: ReplyMode;
  readonly size: bigint;
  /** IDs of the negotiated meta contexts. */
  readonly contextIds: readonly number[];
}

/** Longest read that is replied to with data. */
const MAX_READ = 64n * 1024n * 1024n;

/** The correct reply to a command other than NBD_CMD_DISC. */
export function commandAnswer(command: ReceivedCommand, context: AnswerContext): Buffer {
  const { type, cookie, offset, length } = command;
  const isInside = offset + length <= context.size;
  switch (type) {
    case c.NBD_CMD_READ:
      if (!isInside || length > MAX_READ) return failure(command, c.NBD_EINVAL, context);
      return context.mode === 'simple'
        ? simpleReply(0, cookie, pattern(offset, length))
        : framed(command, c.NBD_REPLY_TYPE_OFFSET_DATA, join(u64(offset), pattern(offset, length)), context);
    case c.NBD_CMD_BLOCK_STATUS:
      if (!isInside || context.mode === 'simple' || context.contextIds.length === 0) {
        return failure(command, c.NBD_EINVAL, context);
      }
      return blockStatus(command, context);
    case c.NBD_CMD_WRITE:
    case c.NBD_CMD_TRIM:
    case c.NBD_CMD_WRITE_ZEROES:
      return isInside ? success(command, context) : failure(command, c.NBD_ENOSPC, context);
    case c.NBD_CMD_FLUSH:
    case c.NBD_CMD_CACHE:
      return isInside ? success(command, context) : failure(command, c.NBD_EINVAL, context);
    default:
      return failure(command, c.NBD_EINVAL, context);
  }
}

function blockStatus(command: ReceivedCommand, context: AnswerContext): Buffer {
  const last = context.contextIds.length - 1;
  const chunks = context.contextIds.map((id, at) => {
    const isExtended = context.mode === 'extended';
    const payload = isExtended
      ? join(u32(id), u32(1), u64(command.length), u64(0))
      : join(u32(id), u32(Number(command.length)), u32(0));
    const type = isExtended ? c.NBD_REPLY_TYPE_BLOCK_STATUS_EXT : c.NBD_REPLY_TYPE_BLOCK_STATUS;
    return framed(command, type, payload, context, at === last ? c.NBD_REPLY_FLAG_DONE : 0);
  });
  return join(...chunks);
}

function success(command: ReceivedCommand, context: AnswerContext): Buffer {
  return context.mode === 'simple'
    ? simpleReply(0, command.cookie)
    : framed(command, c.NBD_REPLY_TYPE_NONE, Buffer.alloc(0), context);
}

function failure(command: ReceivedCommand, error: number, context: AnswerContext): Buffer {
  return context.mode === 'simple'
    ? simpleReply(error, command.cookie)
    : framed(command, c.NBD_REPLY_TYPE_ERROR, join(u32(error), u16(0)), context);
}

function framed(
  { cookie, offset }: ReceivedCommand,
  type: number,
  payload: Buffer,
  { mode }: AnswerContext,
  flags = c.NBD_REPLY_FLAG_DONE,
): Buffer {
  return mode === 'extended'
    ? extendedChunk(flags, type, cookie, offset, payload)
    : chunk(flags, type, cookie, payload);
}
