// The lies of table T to every command, where simple replies are the only ones, where structured replies were
// negotiated, and where extended headers were.

import { WIRE_ERRORS } from '../../../support/golden.js';
import {
  close,
  D,
  F,
  F_DISC,
  F_THEN_D,
  fin,
  OK,
  type Outcome,
  SIMPLE,
  sleep,
  stall,
  T,
  type WireCase,
  XR,
  SR,
} from '../../notation.js';
import { CHUNK_STYLES, COMMANDS, type Request, type Answer, SIMPLE_STYLE, WITHOUT_PAYLOAD } from './styles.js';

const STYLES = [SIMPLE_STYLE, ...CHUNK_STYLES];
type Verb = keyof typeof COMMANDS;
const VERBS = Object.keys(COMMANDS) as Verb[];

function each(
  id: string,
  what: string,
  verbs: readonly Verb[],
  styles: readonly { readonly name: string; readonly script: WireCase['script'] }[],
  answer: (request: Request) => Answer,
  expected: readonly Outcome[],
  more: Partial<WireCase> = {},
): WireCase[] {
  return styles.flatMap(({ name, script }) =>
    verbs.map((verb) => ({
      id: `${id}+${verb}+${name}`,
      what: `${what}, to ${verb}, ${name} replies`,
      script: { ...script, reply: answer },
      user: COMMANDS[verb],
      expected,
      ...more,
    })),
  );
}

const [STRUCTURED, EXTENDED] = CHUNK_STYLES as [(typeof CHUNK_STYLES)[number], (typeof CHUNK_STYLES)[number]];
const SOME: readonly Verb[] = ['pread', 'pwrite'];
const payload = ({ data }: Request): Buffer => data;

export const SIMPLE_NEIGHBOURS: readonly WireCase[] = [
  ...[0x67446699, 0x66446698, 0x25609513, 0x21e41c71, 0].flatMap((magic) =>
    each(
      `T01.${magic.toString(16)}`,
      `magic 0x${magic.toString(16)}`,
      SOME,
      STYLES,
      (r) => [SIMPLE(0, r.cookie, payload(r), magic), stall()],
      [D],
    ),
  ),
  ...each(
    'T02',
    'a structured reply, which was not negotiated',
    SOME,
    [SIMPLE_STYLE, EXTENDED],
    (r) => [SR(1, T.NONE, r.cookie), stall()],
    [D],
  ),
  ...each(
    'T25',
    'an extended reply, which was not negotiated',
    SOME,
    [SIMPLE_STYLE, STRUCTURED],
    (r) => [XR(1, T.NONE, r.cookie, r.offset), stall()],
    [D],
  ),
  ...[-1n, 1n, 2n ** 32n, 2n ** 53n, 2n ** 63n].flatMap((more) =>
    [0, 5].flatMap((error) =>
      each(
        `T03.${more}.${error}`,
        `cookie + ${more}, error ${error}`,
        SOME,
        [SIMPLE_STYLE, STRUCTURED],
        (r) => [SIMPLE(error, r.cookie + more), stall()],
        [D],
      ),
    ),
  ),
  ...each(
    'T06',
    'the reply twice',
    WITHOUT_PAYLOAD,
    [SIMPLE_STYLE, STRUCTURED],
    (r) => Buffer.concat([SIMPLE(0, r.cookie), SIMPLE(0, r.cookie)]),
    [D],
    { late: true },
  ),
  ...each(
    'T06b',
    'an error twice',
    VERBS,
    [SIMPLE_STYLE, STRUCTURED],
    (r) => Buffer.concat([SIMPLE(5, r.cookie), SIMPLE(5, r.cookie)]),
    [F_THEN_D('EIO')],
    { late: true },
  ),
  ...each(
    'T26',
    'a payload that is not due',
    WITHOUT_PAYLOAD,
    [SIMPLE_STYLE, STRUCTURED],
    (r) => SIMPLE(0, r.cookie, Buffer.alloc(512)),
    [D],
    { late: true },
  ),
  ...each(
    'T26b',
    'one byte that is not due',
    WITHOUT_PAYLOAD,
    [SIMPLE_STYLE, STRUCTURED],
    (r) => [SIMPLE(0, r.cookie, 'x'), sleep(50), close()],
    [D],
    { late: true, ends: true },
  ),
  ...each('S37', 'success', WITHOUT_PAYLOAD, [SIMPLE_STYLE, STRUCTURED], (r) => SIMPLE(0, r.cookie), [OK]),
  ...each('X03', 'success', VERBS, [EXTENDED], (r) => [SIMPLE(0, r.cookie), stall()], [D]),
  ...each('X03e', 'error', VERBS, [EXTENDED], (r) => [SIMPLE(5, r.cookie), stall()], [D]),
  ...each('S39', 'success with data', ['pread'], [STRUCTURED], (r) => SIMPLE(0, r.cookie, r.data), [D]),
  ...([...WIRE_ERRORS, [2, 'EINVAL'], [0x80000000, 'EINVAL'], [0xffffffff, 'EINVAL']] as const).flatMap(
    ([error, code]) =>
      each(
        `T07.${error}`,
        `error ${error} (${code})`,
        VERBS,
        [SIMPLE_STYLE, STRUCTURED],
        (r) => SIMPLE(error, r.cookie),
        [F(code)],
      ),
  ),
  ...each('T10', 'ESHUTDOWN', VERBS, [SIMPLE_STYLE, STRUCTURED], (r) => SIMPLE(108, r.cookie), [F_DISC('ESHUTDOWN')]),
  ...each(
    'T13',
    'FIN in the header',
    VERBS,
    [SIMPLE_STYLE, STRUCTURED],
    (r) => [SIMPLE(0, r.cookie).subarray(0, 15), close()],
    [D],
  ),
  ...each('T22', 'FIN and nothing more', VERBS, STYLES, () => [fin(), stall()], [D], { ends: true }),
  ...each(
    'T03b',
    "the cookie's bytes in the other order",
    SOME,
    [SIMPLE_STYLE, STRUCTURED],
    (r) => [SIMPLE(0, BigInt.asUintN(64, r.cookie << 56n)), stall()],
    [D],
  ),
];
