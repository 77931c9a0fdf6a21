// `nbd map --picture`: collects the maps and writes the file.

import { writeFile } from 'node:fs/promises';
import { CONTEXT_BASE_ALLOCATION } from '../index.js';
import type { Operand, ParsedArguments } from './arguments.js';
import { CliError, type CommandContext, UsageError } from './command.js';
import { renderHtml, renderSvg } from './map-render.js';
import { collectRuns, openForContexts, rangeOf, type Run } from './map-report.js';
import { systemReason } from './system-reason.js';

/** One context of the export. */
export interface DrawnMap {
  readonly context: string;
  readonly runs: readonly Run[];
}

/** What a picture shows. */
export interface Picture {
  readonly exportName: string;
  /** Of the whole export. */
  readonly size: bigint;
  readonly offset: bigint;
  readonly length: bigint;
  readonly maps: readonly DrawnMap[];
}

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
  const maps: DrawnMap[] = [];
  for (const name of names)
    maps.push({ context: name, runs: await collectRuns(connection, name, range, context.signal) });
  try {
    await writeFile(file, render({ exportName: connection.getExportName(), size, ...range, maps }));
  } catch (cause) {
    throw new CliError(`${file}: ${systemReason(cause)}`, { cause });
  }
}
