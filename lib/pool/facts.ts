// The facts about a pool's export: those of the connection that was made last, which are the same as those of the first
// wherever that matters. They stay readable while no connection is open, and after the end.

import { inspect } from 'node:util';
import type { NbdConnection } from '../client/node.js';
import { NbdConnectionError, NbdError } from '../errors.js';
import { SIZE_MAXIMUM, SIZE_MINIMUM, SIZE_PAYLOAD, SIZE_PREFERRED } from '../protocol/client-constants.js';

const GETTERS = [
  'getUri',
  'getExportName',
  'getSize',
  'getProtocol',
  'getStructuredRepliesNegotiated',
  'getExtendedHeadersNegotiated',
  'getTlsNegotiated',
  'getCanonicalExportName',
  'getExportDescription',
  'isReadOnly',
  'isRotational',
  'canFlush',
  'canFua',
  'canTrim',
  'canZero',
  'canFastZero',
  'canDf',
  'canMultiConn',
  'canCache',
  'canBlockStatusPayload',
] as const;

/** The facts that take no argument. */
export type FactName = (typeof GETTERS)[number];

type Outcome = { readonly value: unknown } | { readonly error: unknown };

const outcomeOf = (ask: () => unknown): Outcome => {
  try {
    return { value: ask() };
  } catch (error) {
    return { error };
  }
};

function valueOf(outcome: Outcome): unknown {
  if ('value' in outcome) return outcome.value;
  const { error } = outcome;
  // Its stack is that of another call.
  if (error instanceof NbdError) throw new NbdError(error.message, { code: error.code, syscall: error.syscall });
  throw error;
}

const shown = (value: unknown): string => (typeof value === 'string' ? value : inspect(value));

const SIZES = [SIZE_MINIMUM, SIZE_PREFERRED, SIZE_MAXIMUM, SIZE_PAYLOAD];

export class KnownFacts {
  readonly #connection: NbdConnection;
  readonly #facts = new Map<FactName, Outcome>();
  readonly #blockSizes = new Map<number, number>();
  readonly #contexts = new Map<string, boolean>();

  /** Of a connection that is ready; `contexts` are those that were asked for. */
  constructor(connection: NbdConnection, contexts: readonly string[]) {
    this.#connection = connection;
    for (const name of GETTERS)
      this.#facts.set(
        name,
        outcomeOf(() => connection[name]()),
      );
    for (const size of SIZES) this.#blockSizes.set(size, connection.getBlockSize(size));
    for (const name of contexts) this.#contexts.set(name, this.#asksContext(name) === true);
  }

  get<Name extends FactName>(name: Name): ReturnType<NbdConnection[Name]> {
    return valueOf(this.#facts.get(name) as Outcome) as ReturnType<NbdConnection[Name]>;
  }

  blockSize(sizeType: number): number {
    // The connection knows how to refuse what is not one of them.
    return this.#blockSizes.get(sizeType) ?? this.#connection.getBlockSize(sizeType);
  }

  canMetaContext(name: string): boolean {
    const known = this.#contexts.get(name);
    if (known !== undefined) return known;
    const answer = this.#connection.canMetaContext(name);
    this.#contexts.set(name, answer);
    return answer;
  }

  #asksContext(name: string): boolean | null {
    const outcome = outcomeOf(() => this.#connection.canMetaContext(name));
    return 'value' in outcome ? (outcome.value as boolean) : null;
  }

  /** What must be the same on every connection. */
  #identity(): [what: string, value: unknown][] {
    const [minimum, preferred, maximum] = SIZES.map((size) => this.#blockSizes.get(size));
    const name = this.#facts.get('getCanonicalExportName');
    return [
      ['size', this.get('getSize')],
      ['read-only flag', this.get('isReadOnly')],
      ['minimum block size', minimum],
      ['preferred block size', preferred],
      ['maximum block size', maximum],
      ...[...this.#contexts].map(([context, has]): [string, unknown] => [
        `metadata context ${JSON.stringify(context)}`,
        has,
      ]),
      ['canonical name', name !== undefined && 'value' in name ? JSON.stringify(name.value) : undefined],
    ];
  }

  /** Throws NbdConnectionError `ESTALE` when the other facts are those of another export. */
  checkSame(other: KnownFacts, target: string, mask: boolean): void {
    const theirs = new Map(other.#identity());
    for (const [what, value] of this.#identity()) {
      const found = theirs.get(what);
      // A fact that only one of them knows cannot be compared.
      if (found === value || found === undefined || value === undefined) continue;
      const isSecret = mask && what === 'canonical name';
      const [was, is] = isSecret ? ['***', 'another one'] : [shown(value), shown(found)];
      throw new NbdConnectionError(
        `connect to ${target}: this is not the export that the pool was connected to: its ${what} is ${is} and was ` +
          `${was}; the pool has ended, so that data of two exports is not mixed`,
        { code: 'ESTALE', syscall: 'connect' },
      );
    }
  }
}
