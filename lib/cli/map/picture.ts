// `nbd map --picture`: collects the maps and writes the picture.

import type { Operand, ParsedArguments } from '../arguments.js';
import type { CommandContext } from '../command.js';
import { UsageError } from '../errors.js';
import { mergedExtents } from '../../bulk/maps/merged.js';
import { CellGrid, niceCellSize } from './cells.js';
import { MOST_CELLS, renderHtml, renderSvg } from './render.js';
import { openForContexts, Totals } from './runs.js';
import { rangeOf } from '../range.js';
import { CONTEXT_BASE_ALLOCATION } from '../sdk.js';
import { writeWhole } from '../output/whole-file.js';

export async function drawPicture(
  args: ParsedArguments,
  contexts: readonly string[],
  file: string,
  server: Operand,
  context: CommandContext,
): Promise<void> {
  const render = /\.svg$/i.test(file) ? renderSvg : /\.html?$/i.test(file) ? renderHtml : null;
  if (render === null) throw new UsageError(`--picture: ${file}: the name must end with .svg or .html`);
  const names = contexts.length === 0 ? [CONTEXT_BASE_ALLOCATION] : contexts;
  const connection = await openForContexts(names, server, context);
  const size = connection.getSize();
  const range = rangeOf(args, size);
  const cellSize = niceCellSize(range.length, MOST_CELLS);
  const maps = names.map((name) => ({ name, grid: new CellGrid(range, cellSize), totals: new Totals() }));
  for await (const { offset, length, flags } of mergedExtents(connection, {
    contexts: names,
    ...range,
    signal: context.signal,
  })) {
    for (const [index, { grid, totals }] of maps.entries()) {
      const run = { offset, length, type: flags[index] ?? 0n };
      grid.add(run);
      totals.add(run);
    }
  }
  const drawn = maps.map(({ name, grid, totals }) => ({ context: name, cells: grid.cells, totals: totals.list }));
  await writeWhole(file, render({ exportName: connection.getExportName(), size, ...range, cellSize, maps: drawn }));
}
