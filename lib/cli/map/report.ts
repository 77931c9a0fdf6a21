// The map of an export as text and as JSON, in the layout of nbdinfo --map. Any number of extents in bounded memory.

import { extentBatches } from '../../bulk/maps/extents.js';
import type { Operand, ParsedArguments } from '../arguments.js';
import { CliError, type CommandContext } from '../command.js';
import { describeType } from './contexts.js';
import { blocksAround, LAST_BLOCK_MAY_BE_SHORT, minimumBlock, type Range, rangeOf } from '../range.js';
import { CONTEXT_BASE_ALLOCATION, NbdCommandError, type NbdConnection } from '../sdk.js';
import { openServer } from '../server.js';
import { Spool } from '../output/spool.js';
import { choosePaint, general, jsonString, oneDecimal, type Paint } from '../output/text.js';

/** A stretch of one type. */
export interface Run {
  readonly offset: bigint;
  readonly length: bigint;
  readonly type: bigint;
}

/** A connection on which the context was negotiated. */
export async function openForContexts(
  contexts: readonly string[],
  server: Operand,
  context: CommandContext,
): Promise<NbdConnection> {
  const connection = await openServer(server, context, { metaContexts: contexts, ...LAST_BLOCK_MAY_BE_SHORT });
  for (const name of contexts) {
    if (!supports(connection, name)) {
      throw new CliError(`--map: server does not support metadata context ${jsonString(name)}`, {
        hint: "'nbd info' shows those that it has",
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

/** All runs of a range in order, equal neighbours joined. A server has millions of them: none is kept. */
export async function* mapRuns(
  connection: NbdConnection,
  name: string,
  range: Range,
  signal: AbortSignal,
): AsyncGenerator<Iterable<Run>> {
  const joining = new Joining(range);
  // The server answers for whole blocks.
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
 * The extents of an export's last block where that is shorter than the server's minimum. Some servers refuse to answer
 * for it; "data" is what base:allocation says of anything that is not known to be otherwise.
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

/** Bytes of each type. */
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

export async function showMap(
  args: ParsedArguments,
  name: string,
  server: Operand,
  context: CommandContext,
): Promise<void> {
  const connection = await openForContexts([name], server, context);
  const range = rangeOf(args, connection.getSize());
  const paint = choosePaint(args.last('color', 'no-color'));
  if (args.has('totals')) {
    const totals = new Totals();
    for await (const runs of mapRuns(connection, name, range, context.signal)) {
      for (const run of runs) totals.add(run);
    }
    const show = args.has('json') ? totalsJson : totalsText;
    await context.out(show(name, totals.list, range.length, paint));
    return;
  }
  const spool = new Spool(context);
  const isJson = args.has('json');
  const wantsBar = args.has('bar') || (isMapCommand(context) && process.stdout.isTTY && !args.has('no-bar'));
  const bar =
    isJson || !wantsBar
      ? null
      : new (await import('./bar.js')).MapBar(name, range, paint, process.stdout.columns || 80);
  let text = isJson ? '[\n' : '';
  let isFirst = true;
  for await (const runs of mapRuns(connection, name, range, context.signal)) {
    for (const run of runs) {
      bar?.add(run);
      text += isJson ? `${isFirst ? '' : ',\n'}${runJson(name, run)}` : runText(name, run, paint);
      isFirst = false;
      if (text.length < PIECE) continue;
      await spool.write(text);
      text = '';
    }
  }
  await spool.write(isJson ? `${text}\n]\n` : text);
  if (bar !== null) await spool.write(bar.text);
  await spool.print();
}

/** Characters that are put together before they go to the spool. */
const PIECE = 64 * 1024;

/** nbdinfo's own output has no bar. */
const isMapCommand = ({ program }: CommandContext): boolean => program.endsWith('map');

function line(name: string, type: bigint, paint: Paint, columns: string, separator: string): string {
  const { text, foreground, background } = describeType(name, type);
  const coloured = foreground !== null || background !== null;
  const described = text === null ? '' : `${separator}${text}`;
  return `${paint.begin(foreground)}${paint.begin(background)}${columns}${described}${coloured ? paint.end : ''}\n`;
}

function runText(name: string, { offset, length, type }: Run, paint: Paint): string {
  const columns = `${String(offset).padStart(10)}  ${String(length).padStart(10)}  ${String(type).padStart(3)}`;
  return line(name, type, paint, columns, '  ');
}

const runJson = (name: string, { offset, length, type }: Run): string =>
  `{ "offset": ${offset}, "length": ${length}, "type": ${type}${describedJson(name, type)}}`;

function describedJson(name: string, type: bigint): string {
  const { text } = describeType(name, type);
  return text === null ? '' : `, "description": ${jsonString(text)}`;
}

const percent = (bytes: bigint, size: bigint): number => (100 * Number(bytes)) / Number(size);

function totalsText(name: string, totals: Totals['list'], size: bigint, paint: Paint): string {
  return totals
    .map(([type, bytes]) => {
      const share = oneDecimal(percent(bytes, size)).padStart(5);
      return line(name, type, paint, `${String(bytes).padStart(10)} ${share}% ${String(type).padStart(3)}`, ' ');
    })
    .join('');
}

function totalsJson(name: string, totals: Totals['list'], size: bigint): string {
  if (size === 0n) return '[]\n';
  const lines = totals.map(
    ([type, bytes]) =>
      `{ "size": ${bytes}, "percent": ${general(percent(bytes, size))}, "type": ${type}${describedJson(name, type)} }`,
  );
  return `[\n${lines.join(',\n')}\n]\n`;
}
