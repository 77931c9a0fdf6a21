// The properties that `nbd info --can` checks, and the spellings of their names and of the option.

import type { NbdConnection } from '../sdk.js';
import { UsageError } from '../errors.js';

/** A property, and the state that the connection needs to check it. */
export interface Question {
  readonly names: readonly string[];
  /**
   * `connection`: known after connecting, independent of the export. `export`: requires the server's information about
   * the export. `opening`: whether the export can be opened.
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

/** The names of the properties. */
export const PROPERTIES: readonly string[] = QUESTIONS.map(({ names }) => names[0] ?? '');

/** Finds a property by name. Case is ignored, and `_` and a space are the same as `-`. */
export function findQuestion(name: string): Question {
  const plain = name.toLowerCase().replace(/[ _]/g, '-');
  const found = QUESTIONS.find(({ names }) => names.includes(plain));
  if (found !== undefined) return found;
  // nbdinfo's message, word for word.
  throw new UsageError(`unknown --can or --is option: ${name}`, {
    hint: `one of ${PROPERTIES.join(', ')}`,
  });
}

/** `--can` and its synonyms, and the spellings of its negation. */
export const CAN_NAMES = ['can', 'is', 'has', 'have'] as const;
export const CANNOT_NAMES = [
  ...['cannot', 'can-not', 'cant', 'isnt', 'isnot', 'is-not'],
  ...['hasnt', 'hasnot', 'has-not', 'havent', 'havenot', 'have-not'],
] as const;
