// The lies of tables A and B at every option and at every byte of the greeting.

import {
  close,
  D,
  D_ABORT,
  H,
  join,
  NO_SR,
  OK,
  OLD,
  on,
  type OperationResult,
  OPT,
  type Outcome,
  quiet,
  R,
  REP,
  rst,
  stall,
  TIMEOUT,
  trickle,
  type WireCase,
  L,
} from '../../notation.js';
import { SITES, type Site } from './sites.js';

type Steps = Exclude<WireCase['script']['on'], undefined>[number]['steps'];

/** Rows that the tables have already. */
const THERE = new Set(
  ['B01', 'B02', 'B03', 'B05', 'B06', 'B07', 'B07b', 'B09', 'B10', 'B12', 'B12b', 'B24', 'B25'].map((id) => `${id}+GO`),
);

const row = (
  site: Site,
  id: string,
  what: string,
  steps: Steps,
  expected: readonly Outcome[],
  more: Partial<WireCase> = {},
): WireCase => ({
  id: `${id}+${site.name}`,
  what: `${site.name}: ${what}`,
  script: { on: [on(site.option, steps)] },
  ...site.row,
  expected,
  ...more,
});

const KINDS = { SERVER: R.SERVER, INFO: R.INFO, META: R.META } as const;
const UNPRINTABLE = Buffer.from('\x1b[2J\x07\0\xff\xfe ok', 'latin1');
const BIDI = '\u202egnp.exe\u2028ok';

function lies(site: Site): WireCase[] {
  const { option, entry, refused } = site;
  const reply = (type: number, data: Uint8Array | string = '', length?: number): Buffer =>
    REP(option, type, data, length === undefined ? {} : { length });
  const bad = (id: string, what: string, ...bytes: Uint8Array[]): WireCase =>
    row(site, id, what, [...bytes, stall()], [D]);
  return [
    bad('B01', 'last bit of the magic wrong', REP(option, R.ACK, '', { magic: 0x3e889045565a8 })),
    bad('B01b', 'first byte of the magic wrong', REP(option, R.ACK, '', { magic: 0x0103e889045565a9n })),
    bad('B01c', 'nothing but a wrong magic', Buffer.from('IHAVEOPT')),
    bad('B02', 'a reply to another option', REP(option === OPT.LIST ? OPT.GO : OPT.LIST, R.ACK)),
    bad('B02b', 'a reply to option 0', REP(0, R.ACK)),
    bad('B02c', 'an error for another option', REP(option === OPT.LIST ? OPT.GO : OPT.LIST, R.UNSUP)),
    ...[0, 5, 77, 0x7fffffff].map((type) =>
      bad(type === 77 ? 'B03' : `B03.${type}`, `reply type ${type}`, reply(type)),
    ),
    ...Object.entries(KINDS)
      .filter(([, type]) => type !== entry)
      .map(([name, type]) => bad(`B15.${name}`, `REP_${name}`, reply(type, join(Buffer.from([0, 0, 0, 1]), 'a')))),
    ...[4097, 65536, 0x7fffffff, 0xffffffff].map((length) =>
      bad(length === 0xffffffff ? 'B07' : `B07.${length}`, `error of ${length} bytes`, reply(R.POLICY, 'x', length)),
    ),
    ...[1, 4, 0xffffffff].map((length) =>
      bad(length === 0xffffffff ? 'B07b' : `B08.${length}`, `ACK of ${length} bytes`, reply(R.ACK, 'abcd', length)),
    ),
    ...(entry === undefined
      ? []
      : [(64 << 20) + 1, 0x80000000, 0xffffffff].map((length) =>
          bad(`B07c.${length}`, `an entry of ${length} bytes`, reply(entry, '', length)),
        )),
    bad('B09', 'error text of 4097 bytes', reply(R.POLICY, 'x'.repeat(4097))),
    row(site, 'B06', 'error text of 4096 bytes', reply(R.POLICY, 'x'.repeat(4096)), [refused]),
    row(site, 'B06.4095', 'error text of 4095 bytes', reply(R.POLICY, 'x'.repeat(4095)), [refused]),
    row(site, 'B10', 'error text with ESC and no UTF-8', reply(R.POLICY, UNPRINTABLE), [refused], { check: isClean }),
    row(site, 'B10b', 'error text that turns round', reply(R.POLICY, BIDI), [refused], { check: isClean }),
    row(site, 'B12', 'stall in an error text', [reply(R.UNKNOWN, 'x', 2), stall()], [TIMEOUT], { timeout: 400 }),
    row(site, 'B12b', 'stall in a header', [reply(R.ACK).subarray(0, 19), stall()], [TIMEOUT], { timeout: 400 }),
    row(site, 'B12c', 'stall before a header', stall(), [TIMEOUT], { timeout: 400 }),
    row(site, 'B13', 'FIN before the reply', close(), [D]),
    row(site, 'B13b', 'FIN in a header', [reply(R.ACK).subarray(0, 19), close()], [D]),
    row(site, 'B13c', 'FIN in an error text', [reply(R.POLICY, 'abc').subarray(0, -1), close()], [D]),
    row(site, 'B22', 'RST in a header', [reply(R.ACK).subarray(0, 19), rst()], [D], { transport: 'tcp' }),
    ...(site.good === undefined ? [] : goodOnes(site, site.good)),
  ];
}

function goodOnes(site: Site, good: readonly Uint8Array[]): WireCase[] {
  const whole = join(...good);
  return [
    row(site, 'B14', 'the last reply twice', join(whole, REP(site.option, R.ACK)), [D], { late: true }),
    row(site, 'B14b', 'an error after the ACK', join(whole, REP(site.option, R.POLICY)), [D], { late: true }),
    row(
      site,
      'B24',
      'late, piece by piece',
      good.flatMap((piece) => [quiet(50), piece]),
      [OK],
    ),
    row(site, 'B25', 'byte by byte', trickle(whole, 0), [OK]),
    row(site, 'B23', 'FIN before the ACK', [...good.slice(0, -1), close()], [D]),
  ];
}

export const OPTION_NEIGHBOURS: readonly WireCase[] = SITES.flatMap(lies).filter(({ id }) => !THERE.has(id));

const CODES = {
  UNSUP: 'ENOTSUP',
  POLICY: 'EACCES',
  INVALID: 'EINVAL',
  PLATFORM: 'ENOTSUP',
  TLS_REQD: 'ENOTSUP',
  UNKNOWN: 'ENOENT',
  SHUTDOWN: 'ESHUTDOWN',
  BSREQD: 'EINVAL',
  TOO_BIG: 'EINVAL',
  EXTREQD: 'ENOTSUP',
} as const;

/** Every refusal at every option: what it costs is the option's affair, but for the one that announces the end. */
export const REFUSAL_NEIGHBOURS: readonly WireCase[] = SITES.flatMap((site) => [
  ...(Object.keys(CODES) as (keyof typeof CODES)[])
    .filter((name) => site.option !== OPT.GO || name === 'UNSUP')
    .map((name) => {
      const expected = name === 'SHUTDOWN' ? site.goodbye : site.option === OPT.GO ? OK : site.refused;
      return row(site, `E18.${name}`, `ERR_${name}`, REP(site.option, R[name], 'because'), [expected], {
        check: (results) => {
          if (expected.kind !== 'OK') hasReason(results, site.code ?? CODES[name]);
        },
      });
    }),
  ...[0x80000000, 0x8000000b, 0xffffffff].map((type) =>
    row(site, `B05.${type.toString(16)}`, `error 0x${type.toString(16)}`, REP(site.option, type), [site.refused]),
  ),
]);

function hasReason(results: readonly OperationResult[], code: string): void {
  const error = results.find(({ status }) => status === 'rejected')?.error as Error & {
    code?: string;
    serverMessage?: string;
  };
  if (error.code !== code) throw new Error(`code ${error.code} instead of ${code}`);
  if (error.serverMessage !== 'because') throw new Error(`serverMessage ${error.serverMessage}`);
}

function isClean(results: readonly OperationResult[]): void {
  const error = results.find(({ status }) => status === 'rejected')?.error;
  if (error === undefined) return;
  const { message, serverMessage = '' } = error as { message: string; serverMessage?: string };
  // eslint-disable-next-line no-control-regex -- control characters are what must not be there
  if (/[\0-\x1f\x7f\u202e\u2028]/.test(message + serverMessage)) throw new Error(JSON.stringify(message));
  if (!serverMessage.includes('ok')) throw new Error('the text is lost');
}

const wrongAt = (at: number): Buffer => {
  const bytes = H();
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  return bytes;
};
const flagsAre3: WireCase['check'] = (_, { clientFlags }) => {
  if (clientFlags !== 3) throw new Error(`client flags ${clientFlags}`);
};
const glued = {
  byte: Buffer.from('x'),
  'an ACK to extended headers': REP(OPT.EXT, R.ACK),
  'an error': REP(OPT.EXT, R.UNSUP),
  'an answer to GO': REP(OPT.GO, R.ACK),
};

export const GREETING_NEIGHBOURS: readonly WireCase[] = [
  ...Array.from({ length: 16 }, (_, at): WireCase => ({
    id: `${at < 8 ? 'A01' : 'A02'}+${at}`,
    what: `byte ${at} of the greeting wrong`,
    script: { greet: [wrongAt(at), stall()] },
    expected: [D],
  })),
  ...Array.from({ length: 14 }, (_, bit): WireCase => ({
    id: `A12+${bit + 2}`,
    what: `the undefined handshake flag ${bit + 2}`,
    script: { handshakeFlags: 3 | (4 << bit) },
    expected: [OK],
    check: flagsAre3,
  })),
  ...[1, 2, 0x8000, 0xffff].map((flags): WireCase => ({
    id: `A15+${flags}`,
    what: `oldstyle with global flags ${flags}`,
    script: { ...NO_SR, greet: [OLD(2 ** 20, flags), stall()] },
    expected: [D],
  })),
  ...[0, 16, 17, 24, 28, 151].map((length): WireCase => ({
    id: `A19+${length}`,
    what: `FIN after ${length} bytes of an oldstyle greeting`,
    script: { greet: [OLD().subarray(0, length), close()] },
    expected: [D],
  })),
  {
    id: 'A19+stall',
    what: 'oldstyle, the last byte does not come',
    script: { greet: [OLD().subarray(0, 151), stall()] },
    expected: [TIMEOUT],
    timeout: 400,
  },
  { id: 'A14+0', what: 'oldstyle, flags 0', script: { ...NO_SR, greet: [OLD(2 ** 20, 0, 0), stall()] }, expected: [D] },
  {
    id: 'A14+READ_ONLY',
    what: 'oldstyle, read-only',
    script: { ...NO_SR, greet: OLD(2 ** 20, 0, 3) },
    user: 'pwrite 512 0, R',
    expected: [L('EPERM')],
  },
  ...Object.entries(glued).map(([name, bytes]): WireCase => ({
    id: `A22+${name}`,
    what: `the greeting with ${name} behind it`,
    script: { greet: join(H(), bytes) },
    expected: [D],
  })),
  ...[0, 1, 2].map((flags): WireCase => ({
    id: `A17+${flags}`,
    what: `handshake flags ${flags}: the client takes no others`,
    script: { ...NO_SR, handshakeFlags: flags },
    expected: [OK],
    check: (_, { clientFlags }) => {
      if (clientFlags !== flags) throw new Error(`client flags ${clientFlags}`);
    },
  })),
  {
    id: 'A20+plain',
    what: 'plain newstyle closes after EXPORT_NAME',
    script: { ...NO_SR, handshakeFlags: 0, on: [on(OPT.EXPORT_NAME, close())] },
    expected: [D],
  },
  {
    id: 'B05+SR+EXT',
    what: 'both styles refused with an unknown error',
    script: { ...NO_SR, on: [OPT.EXT, OPT.SR].map((option) => on(option, REP(option, 0x800000ff))) },
    expected: [OK],
  },
  {
    id: 'E18.SHUTDOWN+SR+allowed',
    what: 'extended headers refused, then the end announced',
    script: { on: [on(OPT.SR, REP(OPT.SR, R.SHUTDOWN))] },
    expected: [D_ABORT],
  },
];
