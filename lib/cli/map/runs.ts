// The runs of a map: extents of one context, cut to the range and joined. Uses bounded memory for any number of runs.

import { extentBatches } from '../../bulk/maps/extents.js';
import type { Operand } from '../arguments.js';
import type { CommandContext } from '../command.js';
import { CliError } from '../errors.js';
import { blocksAround, LAST_BLOCK_MAY_BE_SHORT, minimumBlock, type Range } from '../range.js';
import { CONTEXT_BASE_ALLOCATION, NbdCommandError, type NbdConnection } from '../sdk.js';
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

function supports(connection: NbdConnection, name: string): boolean {
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
  const joining = new Joining(range);
  // Block status requests must cover whole blocks.
  const { offset, length } = blocksAround(connection, range);
  const tail = (offset + length) % minimumBlock(connection);
  const whole = { offset, length: length - tail };
  for await (const batch of extentBatches(connection, { context: name, ...whole, signal })) yield joining.add(batch);
  if (tail > 0n) {
    const rest = { offset: offset + whole.length, length: tail };
    yield joining.add(await shortBlock(connection, name, rest, signal));
  }
  yield joining.end();
}

/**
 * The extents of an export's last block, if it is shorter than the server's minimum block size. Some servers refuse block
 * status for it. In base:allocation, it is then reported as data, which is always allowed.
 */
async function shortBlock(
  connection: NbdConnection,
  name: string,
  rest: Range,
  signal: AbortSignal,
): Promise<Iterable<{ offset: bigint; length: bigint; flags: bigint }>> {
  const found = [];
  try {
    for await (const batch of extentBatches(connection, { context: name, ...rest, signal })) found.push(...batch);
  } catch (error) {
    if (!(error instanceof NbdCommandError) || name !== CONTEXT_BASE_ALLOCATION) throw error;
    return [{ ...rest, flags: 0n }];
  }
  return found;
}

/** Cuts extents to a range and joins neighbours of the same type. */
class Joining {
  readonly #start: bigint;
  readonly #end: bigint;
  #last: Run | null = null;

  constructor({ offset, length }: Range) {
    this.#start = offset;
    this.#end = offset + length;
  }

  *add(extents: Iterable<{ offset: bigint; length: bigint; flags: bigint }>): Generator<Run> {
    for (const extent of extents) {
      const offset = extent.offset < this.#start ? this.#start : extent.offset;
      const wholeEnd = extent.offset + extent.length;
      const end = wholeEnd < this.#end ? wholeEnd : this.#end;
      if (end <= offset) continue;
      const last = this.#last;
      if (last !== null && last.type === extent.flags) {
        this.#last = { offset: last.offset, length: end - last.offset, type: last.type };
      } else {
        if (last !== null) yield last;
        this.#last = { offset, length: end - offset, type: extent.flags };
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
