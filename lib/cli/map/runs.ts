// The runs of a map: extents of one context, cut to the range and joined. Uses bounded memory for any number of runs.

import { extentBatches } from '../../bulk/maps/extents.js';
import type { Operand } from '../arguments.js';
import type { CommandContext } from '../command.js';
import { CliError } from '../errors.js';
import { LAST_BLOCK_MAY_BE_SHORT, type Range } from '../range.js';
import type { NbdConnection } from '../sdk.js';
import { openServer } from '../server.js';
import { jsonString } from '../output/text.js';

/** A range of one type. */
export interface Run {
  readonly offset: bigint;
  readonly length: bigint;
  readonly type: bigint;
}

/** Opens a connection with the contexts. Throws CliError if the server does not support one of them. */
export async function openForContexts(
  contexts: readonly string[],
  server: Operand,
  context: CommandContext,
): Promise<NbdConnection> {
  const connection = await openServer(server, context, { metaContexts: contexts, ...LAST_BLOCK_MAY_BE_SHORT });
  for (const name of contexts) {
    if (!supports(connection, name)) {
      // nbdinfo's message, word for word.
      throw new CliError(`--map: server does not support metadata context ${jsonString(name)}`, {
        hint: "'nbd info' shows the contexts of the export",
      });
    }
  }
  return connection;
}

/** Whether the context was negotiated. */
export function supports(connection: NbdConnection, name: string): boolean {
  try {
    return connection.canMetaContext(name);
  } catch {
    return false;
  }
}

/** Yields all runs of a range in order, with equal neighbours joined. There may be millions, so none are kept. */
export async function* mapRuns(
  connection: NbdConnection,
  name: string,
  range: Range,
  signal: AbortSignal,
): AsyncGenerator<Iterable<Run>> {
  const joining = new Joining();
  for await (const batch of extentBatches(connection, { context: name, ...range, signal })) yield joining.add(batch);
  yield joining.end();
}

/** Joins neighbours of the same type. */
class Joining {
  #last: Run | null = null;

  *add(extents: Iterable<{ offset: bigint; length: bigint; flags: bigint }>): Generator<Run> {
    for (const { offset, length, flags } of extents) {
      const last = this.#last;
      if (last?.type === flags) {
        this.#last = { offset: last.offset, length: last.length + length, type: flags };
      } else {
        if (last !== null) yield last;
        this.#last = { offset, length, type: flags };
      }
    }
  }

  *end(): Generator<Run> {
    if (this.#last !== null) yield this.#last;
    this.#last = null;
  }
}

/** Counts the bytes of each type. */
export class Totals {
  readonly #bytes = new Map<bigint, bigint>();

  add({ type, length }: Run): void {
    this.#bytes.set(type, (this.#bytes.get(type) ?? 0n) + length);
  }

  /** Ascending by type. */
  get list(): (readonly [type: bigint, bytes: bigint])[] {
    return [...this.#bytes].sort(([a], [b]) => (a < b ? -1 : 1));
  }
}
