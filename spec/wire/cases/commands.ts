// Block status, extended headers, writes and the end of a connection.

import {
  CMD,
  close,
  D,
  DONE,
  EXT,
  F,
  join,
  NO_SR,
  OK,
  OK_CLOSE,
  on,
  OPT,
  R,
  recv,
  REP,
  rst,
  SIMPLE,
  sleep,
  SR,
  stall,
  T,
  u16,
  u32,
  u64,
  type WireCase,
  XR,
} from '../notation.js';

type Results = Parameters<Exclude<WireCase['check'], undefined>>[0];
type CommandReply = Extract<Exclude<WireCase['script']['reply'], undefined>, { steps: unknown }>;
type Status = Extract<CommandReply['steps'], (...args: never[]) => unknown>;
type Pairs = readonly (readonly [length: number | bigint, flags: number | bigint])[];

const status = (steps: Status, more: WireCase['script'] = {}): WireCase['script'] => ({
  ...more,
  reply: { command: CMD.STATUS, steps },
});
const BS = { client: { metaContexts: ['base:allocation'] }, user: 'bs 65536 0, pread 512 4096' } as const;
const BS1 = { ...BS, user: 'bs1 65536 0, pread 512 4096' } as const;
const extents = (context: number, ...pairs: [number, number][]): Buffer =>
  join(u32(context), ...pairs.map(([length, flags]) => join(u32(length), u32(flags))));

/** The extents that the first block status gave, as pairs. */
const gives =
  (expected: Pairs, context = 'base:allocation') =>
  (results: Results): void => {
    if (results[1]?.status !== 'resolved') return;
    const found = (results[1].value as Map<string, Iterable<{ length: number | bigint; flags: number | bigint }>>).get(
      context,
    );
    const text = JSON.stringify([...(found ?? [])].map(({ length, flags }) => [Number(length), Number(flags)]));
    const wanted = JSON.stringify(expected.map(([length, flags]) => [Number(length), Number(flags)]));
    if (text !== wanted) throw new Error(`extents ${text} instead of ${wanted}`);
  };

export const BLOCK_STATUS: readonly WireCase[] = [
  {
    id: 'K01',
    what: 'one extent',
    script: status((r) => SR(DONE, T.BS, r.cookie, extents(r.contextId, [65536, 3]))),
    ...BS,
    expected: [OK],
    check: gives([[65536, 3]]),
  },
  {
    id: 'K01b',
    what: 'three extents that stop short',
    script: status((r) => SR(DONE, T.BS, r.cookie, extents(r.contextId, [512, 3], [512, 0], [1024, 2]))),
    ...BS,
    expected: [OK],
    check: gives([
      [512, 3],
      [512, 0],
      [1024, 2],
    ]),
  },
  {
    id: 'K02',
    what: 'unknown context ID',
    script: status((r) => SR(DONE, T.BS, r.cookie, extents(r.contextId + 9, [65536, 0]))),
    ...BS,
    expected: [F('EPROTO'), D],
  },
  {
    id: 'K03',
    what: 'first extent of length 0',
    script: status((r) => SR(DONE, T.BS, r.cookie, extents(r.contextId, [0, 0]))),
    ...BS,
    expected: [F('EPROTO'), D],
  },
  {
    id: 'K04',
    what: 'later extent of length 0',
    script: status((r) => SR(DONE, T.BS, r.cookie, extents(r.contextId, [4096, 0], [0, 1]))),
    ...BS,
    expected: [OK, F('EPROTO'), D],
  },
  {
    id: 'K05',
    what: 'payload of 11 bytes',
    script: status((r) => SR(DONE, T.BS, r.cookie, extents(r.contextId, [65536, 0]).subarray(0, 11))),
    ...BS,
    expected: [D],
  },
  {
    id: 'K06',
    what: 'payload of 4 bytes: no extent',
    script: status((r) => SR(DONE, T.BS, r.cookie, u32(r.contextId))),
    ...BS,
    expected: [D],
  },
  { id: 'K06b', what: 'payload of 0 bytes', script: status((r) => SR(DONE, T.BS, r.cookie)), ...BS, expected: [D] },
  {
    id: 'K07',
    what: 'two chunks for one context',
    script: status((r) => [
      SR(0, T.BS, r.cookie, extents(r.contextId, [4096, 0])),
      SR(DONE, T.BS, r.cookie, extents(r.contextId, [4096, 3])),
    ]),
    ...BS,
    expected: [F('EPROTO'), D],
  },
  {
    id: 'K08',
    what: 'NONE|DONE and no extents',
    script: status((r) => SR(DONE, T.NONE, r.cookie)),
    ...BS,
    expected: [F('EPROTO'), D],
  },
  { id: 'K09', what: 'simple success', script: status((r) => SIMPLE(0, r.cookie)), ...BS, expected: [F('EPROTO'), D] },
  { id: 'K10', what: 'simple error', script: status((r) => SIMPLE(5, r.cookie)), ...BS, expected: [F('EIO')] },
  {
    id: 'K11',
    what: 'the first extent fills the request, another follows',
    script: status((r) => SR(DONE, T.BS, r.cookie, extents(r.contextId, [65536, 0], [65536, 3]))),
    ...BS,
    expected: [OK, D, F('EPROTO')],
    check: gives([[65536, 0]]),
  },
  {
    id: 'K12',
    what: 'last extent beyond the request, inside the export',
    script: status((r) => SR(DONE, T.BS, r.cookie, extents(r.contextId, [4096, 3], [65536, 0]))),
    ...BS,
    expected: [OK],
  },
  {
    id: 'K13',
    what: 'last extent beyond the export',
    script: status((r) => SR(DONE, T.BS, r.cookie, extents(r.contextId, [0xffffffff, 0]))),
    ...BS,
    expected: [OK, D, F('EPROTO')],
  },
  {
    id: 'K14',
    what: 'unknown status bits',
    script: status((r) => SR(DONE, T.BS, r.cookie, extents(r.contextId, [65536, 0xfffffffc]))),
    ...BS,
    expected: [OK],
  },
  {
    id: 'K15',
    what: '2^20 extents',
    script: status((r) => SR(DONE, T.BS, r.cookie, join(u32(r.contextId), alternating(2 ** 20))), { size: 2 ** 31 }),
    ...BS,
    user: 'bs 2147483647 0, pread 512 4096',
    expected: [OK, F('EPROTO'), D],
    memory: 512,
    heavy: true,
  },
  {
    id: 'K16',
    what: '8,388,000 extents',
    script: status((r) => SR(DONE, T.BS, r.cookie, join(u32(r.contextId), Buffer.alloc(8 * 8_388_000, u64(2 ** 32))))),
    ...BS,
    expected: [D, OK],
    memory: 512,
    heavy: true,
  },
  {
    id: 'K17',
    what: 'chunk of 64 MiB + 12',
    script: status((r) => [SR(DONE, T.BS, r.cookie, u32(r.contextId), { length: (64 << 20) + 12 }), stall()]),
    ...BS,
    expected: [D],
  },
  {
    id: 'K18',
    what: 'data instead of status',
    script: status((r) => SR(DONE, T.DATA, r.cookie, join(u64(r.offset), Buffer.alloc(512)))),
    ...BS,
    expected: [D],
  },
  {
    id: 'K19',
    what: 'ERROR EINVAL',
    script: status((r) => SR(DONE, T.ERR, r.cookie, join(u32(22), u16(0)))),
    ...BS,
    expected: [F('EINVAL')],
  },
  {
    id: 'K20',
    what: 'status, then ERROR',
    script: status((r) => [
      SR(0, T.BS, r.cookie, extents(r.contextId, [65536, 0])),
      SR(DONE, T.ERR, r.cookie, join(u32(5), u16(0))),
    ]),
    ...BS,
    expected: [F('EIO')],
  },
  {
    id: 'K21',
    what: '32-bit lengths that sum past 2^32',
    script: status(
      (r) =>
        SR(
          DONE,
          T.BS,
          r.cookie,
          extents(r.contextId, ...Array.from({ length: 4 }, (): [number, number] => [0x80000000, 0])),
        ),
      { size: 2 ** 40 },
    ),
    ...BS,
    expected: [F('EPROTO'), OK, D],
  },
  {
    id: 'K22',
    what: 'two contexts, chunks in reverse order',
    script: status(
      (r) => [SR(0, T.BS, r.cookie, extents(2, [65536, 7])), SR(DONE, T.BS, r.cookie, extents(1, [65536, 0]))],
      {
        on: [
          on(OPT.SETMETA, [
            REP(OPT.SETMETA, R.META, join(u32(1), 'base:allocation')),
            REP(OPT.SETMETA, R.META, join(u32(2), 'x-two:b')),
            REP(OPT.SETMETA, R.ACK),
          ]),
        ],
      },
    ),
    ...BS,
    client: { metaContexts: ['base:allocation', 'x-two:b'] },
    expected: [OK],
    check: (results) => {
      gives([[65536, 0]])(results);
      gives([[65536, 7]], 'x-two:b')(results);
    },
  },
  {
    id: 'K23',
    what: 'two contexts, a chunk for one',
    script: status((r) => SR(DONE, T.BS, r.cookie, extents(1, [65536, 0])), {
      on: [
        on(OPT.SETMETA, [
          REP(OPT.SETMETA, R.META, join(u32(1), 'base:allocation')),
          REP(OPT.SETMETA, R.META, join(u32(2), 'x-two:b')),
          REP(OPT.SETMETA, R.ACK),
        ]),
      ],
    }),
    ...BS,
    client: { metaContexts: ['base:allocation', 'x-two:b'] },
    expected: [F('EPROTO'), D],
  },
  {
    id: 'K24',
    what: 'REQ_ONE: two extents',
    script: status((r) => SR(DONE, T.BS, r.cookie, extents(r.contextId, [4096, 0], [4096, 3]))),
    ...BS1,
    expected: [OK, F('EPROTO'), D],
    check: gives([[4096, 0]]),
  },
  {
    id: 'K25',
    what: 'REQ_ONE: one extent',
    script: status((r) => SR(DONE, T.BS, r.cookie, extents(r.contextId, [4096, 0]))),
    ...BS1,
    expected: [OK],
    check: gives([[4096, 0]]),
  },
  {
    id: 'K26',
    what: 'BLOCK_STATUS_EXT that was not negotiated',
    script: status((r) => SR(DONE, T.BSEXT, r.cookie, join(u32(r.contextId), u32(1), u64(65536), u64(0)))),
    ...BS,
    expected: [D, F('EPROTO')],
  },
];

const extended = (context: number, ...pairs: [number | bigint, number][]): Buffer =>
  join(u32(context), u32(pairs.length), ...pairs.map(([length, flags]) => join(u64(length), u64(flags))));
const extStatus = (steps: Status, more: WireCase['script'] = {}): WireCase['script'] =>
  status(steps, { ...EXT, ...more });

export const EXTENDED: readonly WireCase[] = [
  {
    id: 'X01',
    what: 'good read',
    script: { ...EXT, reply: (r) => XR(DONE, T.DATA, r.cookie, r.offset, join(u64(r.offset), r.data)) },
    expected: [OK],
  },
  {
    id: 'X02',
    what: "the reply's offset differs from the request's",
    script: { ...EXT, reply: (r) => XR(DONE, T.DATA, r.cookie, r.offset + 512n, join(u64(r.offset), r.data)) },
    expected: [F('EPROTO'), D],
  },
  {
    id: 'X03',
    what: 'simple success',
    script: { ...EXT, reply: (r) => [SIMPLE(0, r.cookie, r.data), stall()] },
    expected: [D],
  },
  {
    id: 'X03b',
    what: 'simple success to a write',
    script: { ...EXT, reply: (r) => [SIMPLE(0, r.cookie), stall()] },
    user: 'pwrite 512 0, R',
    expected: [D],
  },
  {
    id: 'X04',
    what: 'length 2^32 + 520',
    script: {
      ...EXT,
      reply: (r) => [
        XR(DONE, T.DATA, r.cookie, r.offset, join(u64(r.offset), r.data), { length: 2 ** 32 + 520 }),
        stall(),
      ],
    },
    expected: [D],
  },
  {
    id: 'X05',
    what: 'length 2^64 - 1',
    script: {
      ...EXT,
      reply: (r) => [XR(DONE, T.DATA, r.cookie, r.offset, u64(r.offset), { length: 2n ** 64n - 1n }), stall()],
    },
    expected: [D],
  },
  {
    id: 'X05b',
    what: 'NONE of length 2^32',
    script: { ...EXT, reply: (r) => [XR(DONE, T.NONE, r.cookie, r.offset, '', { length: 2 ** 32 }), stall()] },
    user: 'pwrite 512 0, R',
    expected: [D],
  },
  {
    id: 'X06',
    what: 'structured reply, then silence',
    script: { ...EXT, reply: (r) => [SR(DONE, T.NONE, r.cookie), stall()] },
    expected: [D],
  },
  {
    id: 'X07',
    what: 'BLOCK_STATUS with 32 bits',
    script: extStatus((r) => XR(DONE, T.BS, r.cookie, r.offset, extents(r.contextId, [65536, 0]))),
    ...BS,
    expected: [F('EPROTO'), D],
  },
  {
    id: 'X08',
    what: 'good block status',
    script: extStatus((r) => XR(DONE, T.BSEXT, r.cookie, r.offset, extended(r.contextId, [4096, 3], [61440, 0]))),
    ...BS,
    expected: [OK],
    check: gives([
      [4096, 3],
      [61440, 0],
    ]),
  },
  {
    id: 'X09',
    what: 'extent of length 2^64 - 1',
    script: extStatus((r) => XR(DONE, T.BSEXT, r.cookie, r.offset, extended(r.contextId, [2n ** 64n - 1n, 0]))),
    ...BS,
    expected: [F('EPROTO'), OK, D],
  },
  {
    id: 'X10',
    what: 'count larger than the payload',
    script: extStatus((r) => XR(DONE, T.BSEXT, r.cookie, r.offset, join(u32(r.contextId), u32(2), u64(65536), u64(0)))),
    ...BS,
    expected: [D, F('EPROTO')],
  },
  {
    id: 'X10b',
    what: 'count 0xffffffff',
    script: extStatus((r) =>
      XR(DONE, T.BSEXT, r.cookie, r.offset, join(u32(r.contextId), u32(0xffffffff), u64(65536), u64(0))),
    ),
    ...BS,
    expected: [D, F('EPROTO')],
  },
  {
    id: 'X11',
    what: 'count 0',
    script: extStatus((r) => XR(DONE, T.BSEXT, r.cookie, r.offset, extended(r.contextId))),
    ...BS,
    expected: [D, F('EPROTO')],
  },
  {
    id: 'X12',
    what: 'payload of 8 + 15 bytes',
    script: extStatus((r) => XR(DONE, T.BSEXT, r.cookie, r.offset, join(u32(r.contextId), u32(1), 'x'.repeat(15)))),
    ...BS,
    expected: [D, F('EPROTO')],
  },
  {
    id: 'X13',
    what: 'flags of 64 bits',
    script: extStatus((r) =>
      XR(DONE, T.BSEXT, r.cookie, r.offset, join(u32(r.contextId), u32(1), u64(65536), u64(2n ** 63n))),
    ),
    ...BS,
    expected: [OK, F('EPROTO'), F('EOVERFLOW')],
  },
  {
    id: 'X14',
    what: 'unknown cookie',
    script: { ...EXT, reply: (r) => [XR(DONE, T.NONE, r.cookie + 1000n, r.offset), stall()] },
    expected: [D],
  },
  {
    id: 'X15',
    what: 'ERROR',
    script: { ...EXT, reply: (r) => XR(DONE, T.ERR, r.cookie, r.offset, join(u32(5), u16(0))) },
    expected: [F('EIO')],
  },
  {
    id: 'X16',
    what: 'write answered NONE|DONE',
    script: { ...EXT, reply: (r) => XR(DONE, T.NONE, r.cookie, r.offset) },
    user: 'pwrite 512 0, R',
    expected: [OK],
  },
  {
    id: 'X17',
    what: 'block status of 2^40 bytes, one extent',
    script: extStatus((r) => XR(DONE, T.BSEXT, r.cookie, r.offset, extended(r.contextId, [2 ** 40, 3])), {
      size: 2 ** 40,
    }),
    ...BS,
    user: 'bs64 1099511627776 0, pread 512 4096',
    expected: [OK],
    check: gives([[2 ** 40, 3]]),
  },
  {
    id: 'X18',
    what: 'trim of 2^40 bytes',
    script: { ...EXT, size: 2 ** 40 },
    user: 'trim 1099511627776 0, R',
    expected: [OK],
  },
  {
    id: 'X19',
    what: 'an extended chunk, then a structured one',
    script: {
      ...EXT,
      reply: (r) => [
        XR(0, T.DATA, r.cookie, r.offset, join(u64(r.offset), r.data.subarray(0, 256))),
        SR(DONE, T.DATA, r.cookie, join(u64(r.offset + 256n), r.data.subarray(256))),
        stall(),
      ],
    },
    expected: [D],
  },
  {
    id: 'X20',
    what: 'extended headers acknowledged with data',
    script: { on: [on(OPT.EXT, [REP(OPT.EXT, R.ACK, 'abcd'), stall()])] },
    expected: [D],
  },
];

const WRITE = { user: 'pwrite 1048576 0, R' } as const;

export const WRITES: readonly WireCase[] = [
  {
    id: 'W01',
    what: 'reply right after the header, payload read 300 ms later',
    script: { ...NO_SR, afterWriteHeader: (r) => [SIMPLE(0, r.cookie), sleep(300)] },
    ...WRITE,
    expected: [OK],
    check: arrivedWhole,
  },
  {
    id: 'W02',
    what: 'ENOSPC right after the header',
    script: { ...NO_SR, afterWriteHeader: (r) => [SIMPLE(28, r.cookie), sleep(300)] },
    ...WRITE,
    expected: [F('ENOSPC')],
    check: arrivedWhole,
  },
  {
    id: 'W03',
    what: 'FIN in the middle of the payload',
    script: { ...NO_SR, afterWriteHeader: [recv(1000), close()] },
    ...WRITE,
    expected: [D],
  },
  {
    id: 'W04',
    what: 'RST in the middle of the payload',
    script: { ...NO_SR, afterWriteHeader: [recv(1000), rst()] },
    ...WRITE,
    transport: 'tcp',
    expected: [D],
  },
  {
    id: 'W05',
    what: 'good write of 1 MiB, read slowly',
    script: { ...NO_SR, reply: (r) => [sleep(100), SIMPLE(0, r.cookie)] },
    ...WRITE,
    expected: [OK],
    check: arrivedWhole,
  },
  {
    id: 'W06',
    what: 'DISC: never closes',
    script: { ...NO_SR, onDisconnect: stall() },
    user: 'pread 512 0, shutdown',
    expected: [OK_CLOSE],
  },
  {
    id: 'W07',
    what: 'DISC: a stray reply, then closes',
    script: { ...NO_SR, onDisconnect: [SIMPLE(0, 99), close()] },
    user: 'pread 512 0, shutdown',
    expected: [OK_CLOSE],
  },
  {
    id: 'W08',
    what: 'DISC: RST',
    script: { ...NO_SR, onDisconnect: rst() },
    user: 'pread 512 0, shutdown',
    transport: 'tcp',
    expected: [OK_CLOSE],
  },
  { id: 'W09', what: 'DISC with a good end', script: {}, user: 'pread 512 0, shutdown', expected: [OK_CLOSE] },
];

function arrivedWhole(_: Results, seen: Parameters<Exclude<WireCase['check'], undefined>>[1]): void {
  const write = seen.commands.find((command) => command.type === CMD.WRITE);
  const payload = write === undefined ? undefined : seen.payloadOf(write);
  if (payload?.length !== 2 ** 20) throw new Error(`a payload of ${payload?.length} bytes`);
  const wrong = payload.findIndex((byte, i) => byte !== ((i * 13 + 5) & 255));
  if (wrong !== -1) throw new Error(`the payload is wrong from byte ${wrong}`);
}

/** Extents of one byte whose flags alternate. */
function alternating(count: number): Buffer {
  const bytes = Buffer.alloc(count * 8);
  for (let i = 0; i < count; i++) {
    bytes.writeUInt32BE(1, i * 8);
    bytes.writeUInt32BE(i & 1, i * 8 + 4);
  }
  return bytes;
}
