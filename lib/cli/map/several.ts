// The map of several contexts at once: a line per run of bytes that has the same status in all of them. One pass of block
// status commands serves all contexts.

import { mergedExtents, type MergedExtent } from '../../bulk/maps/merged.js';
import { totals } from '../../bulk/maps/totals.js';
import type { Operand, ParsedArguments } from '../arguments.js';
import type { CommandContext } from '../command.js';
import { describeType } from './contexts.js';
import { describedJson, totalsJson, totalsText } from './lines.js';
import { Listing } from './listing.js';
import { openForContexts } from './runs.js';
import { rangeOf } from '../range.js';
import { choosePaint, jsonString, type Paint } from '../output/text.js';
import { visible } from '../../util/visible.js';

export async function showSeveral(
  args: ParsedArguments,
  contexts: readonly string[],
  server: Operand,
  context: CommandContext,
): Promise<void> {
  const connection = await openForContexts(contexts, server, context);
  const range = rangeOf(args, connection.getSize());
  const paint = choosePaint(args.last('color', 'no-color'));
  const options = { contexts, ...range, signal: context.signal };
  const isJson = args.has('json');
  if (args.has('totals')) {
    const found = [...(await totals(connection, options))].map(([name, bytes]) => [name, [...bytes]] as const);
    const parts = found.map(([name, list]) =>
      isJson
        ? `${jsonString(name)}: ${totalsJson(name, list, range.length).trimEnd()}`
        : `${visible(name)}:\n${totalsText(name, list, range.length, paint)}`,
    );
    await context.out(isJson ? `{\n${parts.join(',\n')}\n}\n` : parts.join(''));
    return;
  }
  const listing = new Listing(context, isJson);
  for await (const extent of mergedExtents(connection, options)) {
    const full = listing.add(isJson ? extentJson(contexts, extent) : extentText(contexts, extent, paint));
    if (full !== null) await full;
  }
  await listing.print();
}

/** Characters of a description, but for that of the last context. */
const DESCRIPTION = 10;

function extentText(contexts: readonly string[], { offset, length, flags }: MergedExtent, paint: Paint): string {
  const columns = contexts.map((name, index) => {
    const type = flags[index] ?? 0n;
    const { text, foreground, background } = describeType(name, type);
    const coloured = foreground !== null || background !== null;
    const words = `${String(type).padStart(3)}  ${text ?? ''}`.trimEnd();
    const isLast = index === contexts.length - 1;
    const begin = `${paint.begin(foreground)}${paint.begin(background)}`;
    return `${begin}${isLast ? words : words.padEnd(DESCRIPTION + 5)}${coloured ? paint.end : ''}`;
  });
  return `${String(offset).padStart(10)}  ${String(length).padStart(10)}  ${columns.join('  ')}\n`;
}

function extentJson(contexts: readonly string[], { offset, length, flags }: MergedExtent): string {
  const each = contexts.map((name, index) => {
    const type = flags[index] ?? 0n;
    return `${jsonString(name)}: { "type": ${type}${describedJson(name, type)} }`;
  });
  return `{ "offset": ${offset}, "length": ${length}, "contexts": { ${each.join(', ')} } }`;
}
