// `nbd map --picture`: collects the maps and writes the picture.

import type { Operand, ParsedArguments } from '../arguments.js';
import type { CommandContext } from '../command.js';
import { UsageError } from '../errors.js';
import { CellGrid, type DrawnMap, niceCellSize } from './cells.js';
import { MOST_CELLS, renderHtml, renderSvg } from './render.js';
import { mapRuns, openForContexts, Totals } from './runs.js';
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
  const maps: DrawnMap[] = [];
  for (const name of names) {
    const grid = new CellGrid(range, cellSize);
    const totals = new Totals();
    for await (const runs of mapRuns(connection, name, range, context.signal)) {
      for (const run of runs) {
        grid.add(run);
        totals.add(run);
      }
    }
    maps.push({ context: name, cells: grid.cells, totals: totals.list });
  }
  await writeWhole(file, render({ exportName: connection.getExportName(), size, ...range, cellSize, maps }));
}
