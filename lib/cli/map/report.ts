// Prints the map of an export as text or as JSON, in the layout of nbdinfo --map.

import type { Operand, ParsedArguments } from '../arguments.js';
import type { CommandContext } from '../command.js';
import { describeType } from './contexts.js';
import { mapRuns, openForContexts, type Run, Totals } from './runs.js';
import { rangeOf } from '../range.js';
import { Spool } from '../output/spool.js';
import { choosePaint, general, jsonString, oneDecimal, type Paint } from '../output/text.js';

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

/** Characters that are collected before they are added to the spool. */
const PIECE = 64 * 1024;

/** Only `nbd map` shows the bar: the output of nbdinfo has none. */
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
