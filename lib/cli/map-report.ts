// The map of an export as text and as JSON, in the layout of nbdinfo --map.

import { extents, type NbdConnection } from '../index.js';
import type { Operand, ParsedArguments } from './arguments.js';
import { CliError, type CommandContext } from './command.js';
import { describeType } from './contexts.js';
import { openServer } from './server.js';
import { choosePaint, general, jsonString, type Paint, parseSize } from './text.js';

/** A stretch of one type. */
export interface Run {
  readonly offset: bigint;
  readonly length: bigint;
  readonly type: bigint;
}

/** The range that --offset and --length name, within the export. */
export function rangeOf(args: ParsedArguments, size: bigint): { offset: bigint; length: bigint } {
  const offset = args.value('offset');
  const length = args.value('length');
  const start = offset === undefined ? 0n : parseSize('offset', offset);
  if (start > size) throw new CliError(`--offset: ${start} is beyond the end of the export, ${size} bytes`);
  const rest = size - start;
  const wanted = length === undefined ? rest : parseSize('length', length);
  return { offset: start, length: wanted < rest ? wanted : rest };
}

/** A connection on which the context was negotiated. */
export async function openForContexts(
  contexts: readonly string[],
  server: Operand,
  context: CommandContext,
): Promise<NbdConnection> {
  const connection = await openServer(server, context, { metaContexts: contexts });
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

/** All extents, equal neighbours joined. */
export async function collectRuns(
  connection: NbdConnection,
  name: string,
  range: { offset: bigint; length: bigint },
  signal: AbortSignal,
): Promise<Run[]> {
  const runs: Run[] = [];
  for await (const { offset, length, flags } of extents(connection, { context: name, ...range, signal })) {
    runs.push({ offset, length, type: flags });
  }
  return runs;
}

export async function showMap(
  args: ParsedArguments,
  name: string,
  server: Operand,
  context: CommandContext,
): Promise<void> {
  const connection = await openForContexts([name], server, context);
  const range = rangeOf(args, connection.getSize());
  const runs = await collectRuns(connection, name, range, context.signal);
  if (args.has('totals')) {
    const totals = totalsByType(runs);
    const paint = choosePaint(args.last('color', 'no-color'));
    await context.out(
      args.has('json') ? totalsJson(name, totals, range.length) : totalsText(name, totals, range.length, paint),
    );
  } else if (args.has('json')) {
    await context.out(mapJson(name, runs));
  } else {
    const paint = choosePaint(args.last('color', 'no-color'));
    await context.out(mapText(name, runs, paint));
    if (args.has('bar') || (isMapCommand(context) && process.stdout.isTTY && !args.has('no-bar'))) {
      const { mapBar } = await import('./map-bar.js');
      await context.out(mapBar(name, runs, range, paint, process.stdout.columns || 80));
    }
  }
}

/** nbdinfo's own output has no bar. */
const isMapCommand = ({ program }: CommandContext): boolean => program.endsWith('map');

function line(name: string, type: bigint, paint: Paint, columns: string, separator: string): string {
  const { text, foreground, background } = describeType(name, type);
  const coloured = foreground !== null || background !== null;
  const described = text === null ? '' : `${separator}${text}`;
  return `${paint.begin(foreground)}${paint.begin(background)}${columns}${described}${coloured ? paint.end : ''}\n`;
}

export function mapText(name: string, runs: readonly Run[], paint: Paint): string {
  return runs
    .map(({ offset, length, type }) => {
      const columns = `${String(offset).padStart(10)}  ${String(length).padStart(10)}  ${String(type).padStart(3)}`;
      return line(name, type, paint, columns, '  ');
    })
    .join('');
}

function mapJson(name: string, runs: readonly Run[]): string {
  const lines = runs.map(
    ({ offset, length, type }) =>
      `{ "offset": ${offset}, "length": ${length}, "type": ${type}${describedJson(name, type)}}`,
  );
  return `[\n${lines.join(',\n')}\n]\n`;
}

function describedJson(name: string, type: bigint): string {
  const { text } = describeType(name, type);
  return text === null ? '' : `, "description": ${jsonString(text)}`;
}

/** Bytes of each type, ascending. */
export function totalsByType(runs: readonly Run[]): (readonly [type: bigint, bytes: bigint])[] {
  const totals = new Map<bigint, bigint>();
  for (const { type, length } of runs) totals.set(type, (totals.get(type) ?? 0n) + length);
  return [...totals].sort(([a], [b]) => (a < b ? -1 : 1));
}

const percent = (bytes: bigint, size: bigint): number => (100 * Number(bytes)) / Number(size);

type Totals = ReturnType<typeof totalsByType>;

function totalsText(name: string, totals: Totals, size: bigint, paint: Paint): string {
  return totals
    .map(([type, bytes]) => {
      const share = percent(bytes, size).toFixed(1).padStart(5);
      return line(name, type, paint, `${String(bytes).padStart(10)} ${share}% ${String(type).padStart(3)}`, ' ');
    })
    .join('');
}

function totalsJson(name: string, totals: Totals, size: bigint): string {
  if (size === 0n) return '[]\n';
  const lines = totals.map(
    ([type, bytes]) =>
      `{ "size": ${bytes}, "percent": ${general(percent(bytes, size))}, "type": ${type}${describedJson(name, type)} }`,
  );
  return `[\n${lines.join(',\n')}\n]\n`;
}
