// The questions of `nbd info --can` and its many spellings.

import type { NbdConnection } from '../sdk.js';
import { UsageError } from '../errors.js';

/** A question, and how far the connection must have come to answer it. */
export interface Question {
  readonly names: readonly string[];
  /**
   * `connection`: negotiated with the server, whatever the export. `export`: what the server says about the export is
   * known. `opening`: opening the export is the question.
   */
  readonly needs: 'connection' | 'export' | 'opening';
  ask(connection: NbdConnection): boolean;
}

const QUESTIONS: readonly Question[] = [
  { names: ['connect'], needs: 'connection', ask: () => true },
  { names: ['read'], needs: 'connection', ask: () => true },
  { names: ['open'], needs: 'opening', ask: () => true },
  { names: ['tls'], needs: 'connection', ask: (connection) => connection.getTlsNegotiated() },
  {
    names: ['structured-reply', 'sr', 'structured', 'structured-replies'],
    needs: 'connection',
    ask: (connection) => connection.getStructuredRepliesNegotiated(),
  },
  {
    names: ['extended-headers', 'eh', 'extended-header'],
    needs: 'connection',
    ask: (connection) => connection.getExtendedHeadersNegotiated(),
  },
  { names: ['write'], needs: 'export', ask: (connection) => !connection.isReadOnly() },
  { names: ['read-only', 'readonly'], needs: 'export', ask: (connection) => connection.isReadOnly() },
  { names: ['rotational'], needs: 'export', ask: (connection) => connection.isRotational() },
  { names: ['block-status-payload'], needs: 'export', ask: (connection) => connection.canBlockStatusPayload() },
  { names: ['cache'], needs: 'export', ask: (connection) => connection.canCache() },
  { names: ['df'], needs: 'export', ask: (connection) => connection.canDf() },
  { names: ['fast-zero', 'fastzero'], needs: 'export', ask: (connection) => connection.canFastZero() },
  { names: ['flush'], needs: 'export', ask: (connection) => connection.canFlush() },
  { names: ['fua'], needs: 'export', ask: (connection) => connection.canFua() },
  { names: ['multi-conn', 'multiconn'], needs: 'export', ask: (connection) => connection.canMultiConn() },
  { names: ['trim'], needs: 'export', ask: (connection) => connection.canTrim() },
  { names: ['zero'], needs: 'export', ask: (connection) => connection.canZero() },
];

/** The question of a name; `-`, `_` and a space are one, and so are capitals. */
export function findQuestion(name: string): Question {
  const plain = name.toLowerCase().replace(/[ _]/g, '-');
  const found = QUESTIONS.find(({ names }) => names.includes(plain));
  if (found !== undefined) return found;
  throw new UsageError(`unknown --can or --is option: ${name}`, {
    hint: `one of ${QUESTIONS.map(({ names }) => names[0] ?? '').join(', ')}`,
  });
}

/** `--can` and what means the same. */
export const CAN_NAMES = ['can', 'is', 'has', 'have'] as const;
export const CANNOT_NAMES = [
  ...['cannot', 'can-not', 'cant', 'isnt', 'isnot', 'is-not'],
  ...['hasnt', 'hasnot', 'has-not', 'havent', 'havenot', 'have-not'],
] as const;
