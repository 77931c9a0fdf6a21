// NBD_OPT_LIST: the names of a server's exports.

import { NbdError, NbdOptionError } from '../../errors.js';
import { get32 } from '../../util/bytes.js';
import * as c from '../constants.js';
import { type Handshake, skip } from './effects.js';
import { readReply, readString, sendOption, violation } from './option-reply.js';
import type { HandshakeSession } from './session.js';

/** How many exports of one answer are kept, and after how many the answer is considered endless. */
export const MAX_EXPORTS = 10_000;
const MAX_EXPORTS_SKIPPED = 1_000_000;

/** One export of a list. */
export interface ListedExport {
  /** The name, as the server sent it. */
  readonly name: string;
  /** The description; `''` if the server sent none. */
  readonly description: string;
}

export function* list(session: HandshakeSession): Handshake<NbdError | readonly ListedExport[]> {
  const option = c.NBD_OPT_LIST;
  yield* sendOption(session, option);
  const exports: ListedExport[] = [];
  for (let replies = 0; ; replies++) {
    const reply = yield* readReply(session, option, c.NBD_REP_SERVER);
    if (reply instanceof NbdOptionError) return reply;
    if (reply.type === c.NBD_REP_ACK) {
      if (replies <= MAX_EXPORTS) return exports;
      return new NbdError(
        `NBD_OPT_LIST: the server has ${replies} exports, more than the ${MAX_EXPORTS} that are kept`,
        {
          code: 'EOVERFLOW',
        },
      );
    }
    if (replies === MAX_EXPORTS_SKIPPED) throw violation(option, `more than ${MAX_EXPORTS_SKIPPED} exports`);
    if (reply.length < 4) throw violation(option, `an export of ${reply.length} bytes`);
    const nameLength = get32(yield 4, 0);
    if (nameLength > reply.length - 4) {
      throw violation(option, `an export name of ${nameLength} bytes in a reply of ${reply.length}`);
    }
    if (nameLength > c.MAX_STRING) throw violation(option, `an export name of ${nameLength} bytes`);
    if (replies >= MAX_EXPORTS) {
      yield* skip(reply.length - 4);
      continue;
    }
    const name = yield* readString(option, 'an export name', nameLength);
    const description = yield* readString(option, 'an export description', reply.length - 4 - nameLength);
    exports.push({ name, description });
  }
}
