// The questions of `nbd info --can` and its many spellings.

import type { NbdConnection } from './sdk.js';
import { UsageError } from './command.js';

type Question = (connection: NbdConnection) => boolean;

const QUESTIONS: readonly (readonly [names: readonly string[], ask: Question])[] = [
  [['connect', 'read'], () => true],
  [['write'], (connection) => !connection.isReadOnly()],
  [['tls'], (connection) => connection.getTlsNegotiated()],
  [
    ['sr', 'structured', 'structured-reply', 'structured-replies'],
    (connection) => connection.getStructuredRepliesNegotiated(),
  ],
  [['eh', 'extended-header', 'extended-headers'], (connection) => connection.getExtendedHeadersNegotiated()],
  [['readonly', 'read-only'], (connection) => connection.isReadOnly()],
  [['rotational'], (connection) => connection.isRotational()],
  [['block-status-payload'], (connection) => connection.canBlockStatusPayload()],
  [['cache'], (connection) => connection.canCache()],
  [['df'], (connection) => connection.canDf()],
  [['fastzero', 'fast-zero'], (connection) => connection.canFastZero()],
  [['flush'], (connection) => connection.canFlush()],
  [['fua'], (connection) => connection.canFua()],
  [['multiconn', 'multi-conn'], (connection) => connection.canMultiConn()],
  [['trim'], (connection) => connection.canTrim()],
  [['zero'], (connection) => connection.canZero()],
];

/** The question of a name; `-`, `_` and a space are one, and so are capitals. */
export function findQuestion(name: string): Question {
  const plain = name.toLowerCase().replace(/[ _]/g, '-');
  const found = QUESTIONS.find(([names]) => names.includes(plain));
  if (found !== undefined) return found[1];
  throw new UsageError(`unknown --can or --is option: ${name}`, {
    hint: `one of ${QUESTIONS.map(([names]) => names[0] ?? '').join(', ')}`,
  });
}

/** `--can` and what means the same. */
export const CAN_NAMES = ['can', 'is', 'has', 'have'] as const;
export const CANNOT_NAMES = [
  ...['cannot', 'can-not', 'cant', 'isnt', 'isnot', 'is-not'],
  ...['hasnt', 'hasnot', 'has-not', 'havent', 'havenot', 'have-not'],
] as const;
