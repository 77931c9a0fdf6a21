// NBD_OPT_INFO, NBD_OPT_GO and the old NBD_OPT_EXPORT_NAME: ask about an export, and open it.

import { Buffer } from '../../util/buffer.js';
import { type NbdError, NbdOptionError } from '../../errors.js';
import { get16, get32, put16, put32 } from '../../util/bytes.js';
import { fromHalves, type U64 } from '../../util/u64.js';
import * as c from '../constants.js';
import { acceptBlockSizes, type BlockSizes, type ExportInfo, maskFlags } from '../export-info.js';
import { optionName } from '../names.js';
import { type Handshake, skip } from './effects.js';
import { checkedFlags } from './greeting.js';
import { readRefusal, readReply, readString, sendOption, violation } from './option-reply.js';
import type { HandshakeSession } from './session.js';

/** The most information replies to one option. The protocol has four types; a longer answer is considered endless. */
export const MAX_INFO_REPLIES = 64;

/**
 * Sends INFO or GO and keeps what the server reports. Returns the refusal, which discards what was known of the export.
 */
export function* infoOrGo(
  session: HandshakeSession,
  option: typeof c.NBD_OPT_INFO | typeof c.NBD_OPT_GO,
): Handshake<NbdOptionError | null> {
  yield* sendOption(session, option, infoRequest(session));
  const found: {
    size: U64 | null;
    flags: number;
    blockSizes: BlockSizes | null;
    name: string | null;
    text: string | null;
  } = { size: null, flags: 0, blockSizes: null, name: null, text: null };
  for (let replies = 0; ; replies++) {
    const reply = yield* readReply(session, option, c.NBD_REP_INFO);
    if (reply instanceof NbdOptionError) {
      session.forgetExport();
      return reply;
    }
    if (reply.type === c.NBD_REP_ACK) break;
    if (replies === MAX_INFO_REPLIES) throw violation(option, `more than ${MAX_INFO_REPLIES} information replies`);
    if (reply.length < 2) throw violation(option, `information of ${reply.length} bytes`);
    const type = get16(yield 2, 0);
    const length = reply.length - 2;
    switch (type) {
      case c.NBD_INFO_EXPORT: {
        if (length !== 10) throw violation(option, `NBD_INFO_EXPORT of ${reply.length} bytes`);
        const data = yield 10;
        found.size = fromHalves(get32(data, 0), get32(data, 4));
        found.flags = checkedFlags(get16(data, 8));
        break;
      }
      case c.NBD_INFO_BLOCK_SIZE: {
        if (length !== 12) throw violation(option, `NBD_INFO_BLOCK_SIZE of ${reply.length} bytes`);
        const data = yield 12;
        found.blockSizes = acceptBlockSizes(get32(data, 0), get32(data, 4), get32(data, 8));
        break;
      }
      case c.NBD_INFO_NAME:
        found.name = yield* readString(option, 'NBD_INFO_NAME', length);
        break;
      case c.NBD_INFO_DESCRIPTION:
        found.text = yield* readString(option, 'NBD_INFO_DESCRIPTION', length);
        break;
      default:
        yield* skip(length);
    }
  }
  if (found.size === null) throw violation(option, 'an ACK without NBD_INFO_EXPORT');
  session.info = makeInfo(session, { ...found, size: found.size });
  return null;
}

function makeInfo(
  session: HandshakeSession,
  found: { size: U64; flags: number; blockSizes: BlockSizes | null; name: string | null; text: string | null },
): ExportInfo {
  return {
    size: found.size,
    flags: maskFlags(found.flags, session.negotiated),
    blockSizes: found.blockSizes,
    canonicalName: found.name,
    description: found.text,
  };
}

function infoRequest(session: HandshakeSession): Buffer {
  const { exportName, blockSize, fullInfo } = session.request;
  const infos = [
    ...(blockSize ? [c.NBD_INFO_BLOCK_SIZE] : []),
    ...(fullInfo ? [c.NBD_INFO_NAME, c.NBD_INFO_DESCRIPTION] : []),
  ];
  const name = Buffer.from(exportName);
  const data = Buffer.alloc(4 + name.length + 2 + 2 * infos.length);
  put32(data, 0, name.length);
  data.set(name, 4);
  put16(data, 4 + name.length, infos.length);
  infos.forEach((info, index) => {
    put16(data, 4 + name.length + 2 + 2 * index, info);
  });
  return data;
}

/**
 * A server that refuses an EXPORT_NAME can only hang up, but some send the reply of another option. Its magic would be
 * an export of a petabyte without flags.
 */
function* readMisplacedReply(session: HandshakeSession, begun: Buffer): Handshake<NbdError> {
  const header = Buffer.concat([begun, yield 10]);
  const [option, type, length] = [get32(header, 8), get32(header, 12), get32(header, 16)];
  if (option !== c.NBD_OPT_EXPORT_NAME || type < c.NBD_REP_FLAG_ERROR) {
    return violation(c.NBD_OPT_EXPORT_NAME, `a reply to ${optionName(option)} in place of the export`);
  }
  const refusal = yield* readRefusal(session, option, type, length);
  refusal.message += '; it probably has no such export, or does not accept connections from this address';
  return refusal;
}

/** For servers without GO: the only reply is the export itself, and a server refuses by closing the connection. */
export function* exportName(session: HandshakeSession): Handshake<void> {
  yield* sendOption(session, c.NBD_OPT_EXPORT_NAME, Buffer.from(session.request.exportName));
  const data = yield 10;
  if (get32(data, 0) === c.NBD_REP_MAGIC_HIGH && get32(data, 4) === c.NBD_REP_MAGIC_LOW) {
    throw yield* readMisplacedReply(session, data);
  }
  session.info = makeInfo(session, {
    size: fromHalves(get32(data, 0), get32(data, 4)),
    flags: checkedFlags(get16(data, 8)),
    blockSizes: null,
    name: null,
    text: null,
  });
  if (!session.noZeroes) yield 124;
}
