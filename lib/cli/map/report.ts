// Prints the map of an export as text or as JSON, in the layout of nbdinfo --map.

import type { Operand, ParsedArguments } from '../arguments.js';
import type { CommandContext } from '../command.js';
import { Listing } from './listing.js';
import { runJson, runText, totalsJson, totalsText } from './lines.js';
import { mapRuns, openForContexts, Totals } from './runs.js';
import { rangeOf } from '../range.js';
import { choosePaint } from '../output/text.js';

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
  const isJson = args.has('json');
  const listing = new Listing(context, isJson);
  const wantsBar = args.has('bar') || (isMapCommand(context) && process.stdout.isTTY && !args.has('no-bar'));
  const bar =
    isJson || !wantsBar
      ? null
      : new (await import('./bar.js')).MapBar(name, range, paint, process.stdout.columns || 80);
  for await (const runs of mapRuns(connection, name, range, context.signal)) {
    for (const run of runs) {
      bar?.add(run);
      const full = listing.add(isJson ? runJson(name, run) : runText(name, run, paint));
      if (full !== null) await full;
    }
  }
  await listing.print(bar?.text);
}

/** Only `nbd map` shows the bar: the output of nbdinfo has none. */
const isMapCommand = ({ program }: CommandContext): boolean => program.endsWith('map');
