// The rows of table W in every reply format, and what comes when no command is in flight.

import {
  close,
  CMD,
  D,
  DONE,
  F,
  join,
  OK,
  OK_CLOSE,
  type Outcome,
  recv,
  SIMPLE,
  sleep,
  stall,
  T,
  u16,
  u32,
  u64,
  type WireCase,
} from '../../notation.js';
import { type Answer, CHUNK_STYLES, type Request, SIMPLE_STYLE } from './styles.js';

interface Style {
  readonly name: string;
  readonly script: WireCase['script'];
  readonly done: (request: Request) => Buffer;
  readonly failed: (request: Request, error: number) => Buffer;
}

const STYLES: readonly Style[] = [
  {
    ...SIMPLE_STYLE,
    done: ({ cookie }) => SIMPLE(0, cookie),
    failed: ({ cookie }, error) => SIMPLE(error, cookie),
  },
  ...CHUNK_STYLES.map(({ chunk, ...style }) => ({
    ...style,
    done: (request: Request) => chunk(request, DONE, T.NONE),
    failed: (request: Request, error: number) => chunk(request, DONE, T.ERR, join(u32(error), u16(0))),
  })),
];

const arrivedWhole: WireCase['check'] = (_, seen) => {
  const write = seen.commands.find((command) => command.type === CMD.WRITE);
  const payload = write === undefined ? undefined : seen.payloadOf(write);
  if (payload?.length !== 2 ** 20) throw new Error(`a payload of ${payload?.length} bytes`);
  const wrong = payload.findIndex((byte, i) => byte !== ((i * 13 + 5) & 255));
  if (wrong !== -1) throw new Error(`the payload is wrong from byte ${wrong}`);
};

export const WRITE_NEIGHBOURS: readonly WireCase[] = STYLES.flatMap((style): WireCase[] => {
  const early = (id: string, what: string, answer: (r: Request) => Answer, expected: Outcome): WireCase => ({
    id: `${id}+${style.name}`,
    what: `${what}, ${style.name} replies`,
    script: { ...style.script, afterWriteHeader: answer },
    user: 'pwrite 1048576 0, R',
    expected: [expected],
    ...(expected === D ? {} : { check: arrivedWhole }),
  });
  const parting = (id: string, what: string, steps: (r: Request) => Answer): WireCase => ({
    id: `${id}+${style.name}`,
    what: `DISC: ${what}, ${style.name} replies`,
    script: { ...style.script, onDisconnect: steps },
    user: 'pread 512 0, shutdown',
    expected: [OK_CLOSE],
  });
  const unasked = (id: string, what: string, bytes: Uint8Array): WireCase => ({
    id: `${id}+${style.name}`,
    what: `${what} before any request, ${style.name} replies`,
    script: { ...style.script, onTransmission: bytes },
    late: true,
    expected: [D],
  });
  const one = { cookie: 1n, offset: 0n } as Request;
  return [
    early('W01', 'reply before the payload is read', (r) => [style.done(r), sleep(100)], OK),
    early('W02', 'ENOSPC before the payload is read', (r) => [style.failed(r, 28), sleep(100)], F('ENOSPC')),
    early('W03.0', 'FIN before the payload', () => close(), D),
    early('W03.1', 'FIN after a byte of the payload', () => [recv(1), close()], D),
    early('W03.max', 'FIN before the last byte of the payload', () => [recv(2 ** 20 - 1), close()], D),
    early(
      'W10',
      'the reply to another command, in the payload',
      (r) => [style.done({ ...r, cookie: r.cookie + 1n }), stall()],
      D,
    ),
    parting('W06', 'never closes', () => stall()),
    parting('W07', 'a stray reply', () => [style.done({ cookie: 99n, offset: 0n } as Request), close()]),
    parting('W07b', 'half a reply', () => [style.done(one).subarray(0, 9), close()]),
    parting('W07c', 'garbage', () => [Buffer.alloc(4096, 'x'), close()]),
    unasked('T20', 'a reply', style.done(one)),
    unasked('T20.0', 'a reply with cookie 0', style.done({ ...one, cookie: 0n })),
    unasked('T21', 'an error', style.failed(one, 5)),
    unasked('T20b', 'data for the read to come', join(style.done(one).subarray(0, 4), u64(1))),
  ];
});
