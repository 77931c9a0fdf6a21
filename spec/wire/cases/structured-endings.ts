// The transmission phase: structured replies, their errors and their end, and answers of the wrong kind.

import {
  close,
  D,
  DONE,
  E,
  F,
  F_DISC,
  join,
  OK,
  SIMPLE,
  SR,
  stall,
  T,
  TIMEOUT,
  u16,
  u32,
  u64,
  type WireCase,
} from '../notation.js';
import { constant, PART, type Results, WRITE_R } from './steps.js';

export const STRUCTURED_ENDINGS: readonly WireCase[] = [
  {
    id: 'S02',
    what: 'NONE with 4 bytes',
    script: { reply: ({ cookie }) => SR(DONE, T.NONE, cookie, 'abcd') },
    expected: [D],
  },
  {
    id: 'S11',
    what: 'NONE|DONE and no data',
    script: { reply: ({ cookie }) => SR(DONE, T.NONE, cookie) },
    expected: [F('EPROTO'), D],
  },
  {
    id: 'S18',
    what: 'unknown chunk type 7 without DONE',
    script: { reply: ({ cookie }) => [SR(0, 7, cookie, 'abcdefgh'), stall()] },
    expected: [D],
  },
  {
    id: 'S19',
    what: 'unknown chunk type 7 with DONE',
    script: { reply: ({ cookie }) => SR(DONE, 7, cookie, 'abcdefgh') },
    expected: [D],
  },
  {
    id: 'S20',
    what: 'unknown error type, well formed',
    script: { reply: ({ cookie }) => SR(DONE, 0x80ff, cookie, join(u32(5), u16(2), 'hitail')) },
    expected: [F('EIO')],
  },
  {
    id: 'S21',
    what: 'ERROR with a message',
    script: { reply: ({ cookie }) => SR(DONE, T.ERR, cookie, join(u32(28), u16(4), 'full')) },
    expected: [F('ENOSPC')],
    check: (ops) => hasMessage(ops, 'full'),
  },
  {
    id: 'S22',
    what: 'ERROR of length 4',
    script: { reply: ({ cookie }) => SR(DONE, T.ERR, cookie, u32(5)) },
    expected: [D, F('EIO')],
  },
  {
    id: 'S23',
    what: 'ERROR whose message runs past the chunk',
    script: { reply: ({ cookie }) => SR(DONE, T.ERR, cookie, join(u32(5), u16(100), 'short')) },
    expected: [D, F('EIO')],
  },
  {
    id: 'S24',
    what: 'ERROR with errno 0',
    script: { reply: ({ cookie }) => SR(DONE, T.ERR, cookie, join(u32(0), u16(0))) },
    expected: [F('EPROTO'), D],
  },
  {
    id: 'S25',
    what: 'ERROR, then NONE|DONE',
    script: { reply: ({ cookie }) => [SR(0, T.ERR, cookie, join(u32(5), u16(3), 'bad')), SR(DONE, T.NONE, cookie)] },
    expected: [F('EIO')],
    check: (ops) => hasMessage(ops, 'bad'),
  },
  {
    id: 'S26',
    what: 'two errors: the first counts',
    script: {
      reply: ({ cookie }) => [
        SR(0, T.ERR, cookie, join(u32(28), u16(0))),
        SR(DONE, T.ERR, cookie, join(u32(5), u16(0))),
      ],
    },
    expected: [F('ENOSPC')],
  },
  {
    id: 'S27',
    what: 'ERROR with a message of 65,535 bytes',
    script: { reply: ({ cookie }) => SR(DONE, T.ERR, cookie, join(u32(5), u16(65535), 'm'.repeat(65535))) },
    expected: [F('EIO'), D],
  },
  {
    id: 'S28',
    what: 'unknown errno',
    script: { reply: ({ cookie }) => SR(DONE, T.ERR, cookie, join(u32(9999), u16(0))) },
    expected: [F('EINVAL')],
  },
  {
    id: 'S28b',
    what: 'ESHUTDOWN',
    script: { reply: ({ cookie }) => SR(DONE, T.ERR, cookie, join(u32(108), u16(0))) },
    expected: [F_DISC('ESHUTDOWN')],
  },
  {
    id: 'S29',
    what: 'all data, then ERROR|DONE',
    script: {
      reply: ({ cookie, offset, data: d }) => [
        SR(0, T.DATA, cookie, join(u64(offset), d)),
        SR(DONE, T.ERR, cookie, join(u32(5), u16(0))),
      ],
    },
    expected: [F('EIO')],
  },
  {
    id: 'S30',
    what: 'ERROR_OFFSET inside',
    script: {
      reply: ({ cookie, offset }) => SR(DONE, T.ERROFF, cookie, join(u32(5), u16(2), 'hi', u64(offset + 100n))),
    },
    expected: [F('EIO')],
  },
  {
    id: 'S31',
    what: 'ERROR_OFFSET outside the request',
    script: { reply: ({ cookie, offset }) => SR(DONE, T.ERROFF, cookie, join(u32(5), u16(0), u64(offset + 512n))) },
    expected: [D, F('EIO')],
  },
  {
    id: 'S32',
    what: 'ERROR_OFFSET of length 10',
    script: { reply: ({ cookie }) => SR(DONE, T.ERROFF, cookie, join(u32(5), u16(0), '1234')) },
    expected: [F('EIO'), D],
  },
  {
    id: 'S35',
    what: 'BLOCK_STATUS answers a read',
    script: { reply: ({ cookie, contextId }) => SR(DONE, T.BS, cookie, join(u32(contextId), u32(512), u32(0))) },
    expected: [D],
  },
  {
    id: 'S36',
    what: 'OFFSET_DATA answers a write',
    script: { reply: ({ cookie, offset, data: d }) => SR(DONE, T.DATA, cookie, join(u64(offset), d)) },
    ...WRITE_R,
    expected: [D],
  },
  {
    id: 'S36b',
    what: 'OFFSET_HOLE answers a write',
    script: { reply: ({ cookie, offset }) => SR(DONE, T.HOLE, cookie, join(u64(offset), u32(512))) },
    ...WRITE_R,
    expected: [D],
  },
  {
    id: 'S37',
    what: 'simple success answers a write',
    script: { reply: ({ cookie }) => SIMPLE(0, cookie) },
    ...WRITE_R,
    expected: [OK],
  },
  {
    id: 'S38',
    what: 'simple error answers a read',
    script: { reply: ({ cookie }) => SIMPLE(5, cookie) },
    expected: [F('EIO')],
  },
  {
    id: 'S39',
    what: 'simple success answers a read, with the payload',
    script: { reply: ({ cookie, data: d }) => SIMPLE(0, cookie, d) },
    expected: [D, F('EPROTO')],
  },
  {
    id: 'S40',
    what: 'simple success answers a read, without payload',
    script: { reply: ({ cookie }) => [SIMPLE(0, cookie), stall()] },
    timeout: 400,
    expected: [D, TIMEOUT],
  },
  {
    id: 'S41',
    what: 'chunk magic wrong in the second chunk',
    script: {
      reply: ({ cookie, offset, data: d }) => [
        SR(0, T.DATA, cookie, join(u64(offset), d.subarray(0, PART))),
        SR(DONE, T.NONE, cookie, '', { magic: 0x668e33ee }),
        stall(),
      ],
    },
    expected: [D],
  },
  {
    id: 'S44',
    what: 'ERROR that declares 32 MiB',
    script: { reply: ({ cookie }) => [SR(DONE, T.ERR, cookie, join(u32(5), u16(0)), { length: 32 << 20 }), stall()] },
    expected: [D],
  },
  {
    id: 'S44b',
    what: 'NONE that declares 1 GiB',
    script: { reply: ({ cookie }) => [SR(DONE, T.NONE, cookie, '', { length: 1 << 30 }), stall()] },
    expected: [D],
  },
  {
    id: 'S44c',
    what: 'unknown chunk type that declares 1 GiB',
    script: { reply: ({ cookie }) => [SR(DONE, 7, cookie, '', { length: 1 << 30 }), stall()] },
    expected: [D],
  },
  {
    id: 'S49',
    what: 'endless ERROR chunks',
    script: {
      reply: ({ cookie }) => ({
        do: 'repeat',
        count: 1e7,
        make: constant(SR(0, T.ERR, cookie, join(u32(5), u16(5), 'again'))),
      }),
    },
    timeout: 1500,
    memory: 64,
    expected: [E, TIMEOUT, D],
  },
  {
    id: 'S50',
    what: 'structured error with an unknown cookie, then a good reply',
    script: {
      reply: ({ cookie, offset, data: d }) => [
        SR(DONE, T.ERR, cookie + 1000n, join(u32(5), u16(2), 'xx')),
        SR(DONE, T.DATA, cookie, join(u64(offset), d)),
      ],
    },
    expected: [D],
  },
  {
    id: 'S51',
    what: 'NONE|DONE with an unknown cookie',
    script: { reply: ({ cookie }) => [SR(DONE, T.NONE, cookie + 1000n), stall()] },
    expected: [D],
  },
  {
    id: 'S52',
    what: 'FIN between two chunks',
    script: {
      reply: ({ cookie, offset, data: d }) => [SR(0, T.DATA, cookie, join(u64(offset), d.subarray(0, PART))), close()],
    },
    expected: [D],
  },
  {
    id: 'S57',
    what: 'error message with ESC and invalid UTF-8',
    script: {
      reply: ({ cookie }) => SR(DONE, T.ERR, cookie, join(u32(5), u16(6), Buffer.from('\x1b[2J\xff\0', 'latin1'))),
    },
    expected: [F('EIO')],
    check: isClean,
  },
  {
    id: 'S62',
    what: 'the whole reply twice',
    script: {
      reply: ({ cookie, offset, data: d }) =>
        join(SR(DONE, T.DATA, cookie, join(u64(offset), d)), SR(DONE, T.DATA, cookie, join(u64(offset), d))),
    },
    late: true,
    expected: [D],
  },
  {
    id: 'S63',
    what: 'a chunk after DONE',
    script: {
      reply: ({ cookie, offset, data: d }) =>
        join(SR(DONE, T.DATA, cookie, join(u64(offset), d)), SR(DONE, T.NONE, cookie)),
    },
    late: true,
    expected: [D],
  },
  {
    id: 'S67',
    what: 'half the data, ERROR_OFFSET, NONE|DONE',
    script: {
      reply: ({ cookie, offset, data: d }) => [
        SR(0, T.DATA, cookie, join(u64(offset), d.subarray(0, PART))),
        SR(0, T.ERROFF, cookie, join(u32(5), u16(0), u64(offset + 256n))),
        SR(DONE, T.NONE, cookie),
      ],
    },
    expected: [F('EIO')],
  },
];

function hasMessage(results: Results, text: string): void {
  const { message, serverMessage } = results[1]?.error as { message: string; serverMessage?: string };
  if (serverMessage !== text) throw new Error(`serverMessage ${JSON.stringify(serverMessage)}`);
  if (!message.includes(text)) throw new Error(`message ${JSON.stringify(message)}`);
}

function isClean(results: Results): void {
  const { message, serverMessage = '' } = results[1]?.error as { message: string; serverMessage?: string };
  // eslint-disable-next-line no-control-regex -- control characters are what must not be there
  if (/[\0-\x1f\x7f]/.test(message + serverMessage)) throw new Error(JSON.stringify(message));
}
