// What `nbd info` says about one export, as text and as JSON, in nbdinfo's layout.

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type NbdConnection, SIZE_MAXIMUM, SIZE_MINIMUM, SIZE_PREFERRED } from '../sdk.js';
import { COLOURS, humanSize, jsonString, type Paint, sizeWithSuffix } from '../output/text.js';
import { visible } from '../../util/visible.js';

/** Everything that is told about an export. */
export interface ExportReport {
  readonly name: string;
  readonly description: string;
  readonly size: bigint;
  readonly content: string | null;
  readonly uri: string | null;
  readonly contexts: readonly string[] | null;
  /** In the order in which they are shown. */
  readonly flags: readonly (readonly [name: string, value: boolean])[];
  readonly blockSizes: readonly (readonly [name: string, bytes: number])[];
}

/** What of it the caller decides. */
export interface ReportOptions {
  readonly description?: string;
  readonly uri: string | null;
  readonly content: boolean;
  /** Another connection to the export, negotiating, where this one is still needed for others. */
  readonly another?: (exportName: string) => Promise<NbdConnection>;
}

/**
 * Asks the server. The connection is negotiating (or open already, where the server has no option mode) and the
 * export's name is set; afterwards it may be open.
 */
export async function collectReport(connection: NbdConnection, options: ReportOptions): Promise<ExportReport> {
  if (connection.aioIsNegotiating()) {
    connection.setRequestMetaContext(false);
    await informed(connection);
  }
  const contexts = connection.aioIsNegotiating() ? await orNull(connection.optListMetaContext()) : null;
  const facts = factsOf(connection, options, contexts);
  if (!options.content && facts.size > 0n) return { ...facts, content: null };
  // An export of no bytes is rare, and a server that reports one on NBD_OPT_INFO is not: nbd-server 3.16 to 3.27 does so
  // for every export. What it reports when the export is opened is right.
  const opened = await openExport(connection, options);
  if (opened === null) return { ...facts, content: null };
  try {
    const better = factsOf(opened, options, contexts);
    return { ...better, content: options.content ? await probeContent(opened, better.size) : null };
  } finally {
    if (opened !== connection) await opened.shutdown();
  }
}

/** Null where the server refuses, and its answer to NBD_OPT_INFO is all there is. */
async function openExport(connection: NbdConnection, options: ReportOptions): Promise<NbdConnection | null> {
  if (!connection.aioIsNegotiating()) return connection;
  if (options.content) {
    await connection.optGo();
    return connection;
  }
  try {
    const opened = (await options.another?.(connection.getExportName())) ?? connection;
    await opened.optGo();
    return opened;
  } catch {
    return null;
  }
}

function factsOf(
  connection: NbdConnection,
  options: ReportOptions,
  contexts: readonly string[] | null,
): Omit<ExportReport, 'content'> {
  return {
    name: orElse(() => connection.getCanonicalExportName(), connection.getExportName()),
    description: options.description ?? orElse(() => connection.getExportDescription(), ''),
    size: connection.getSize(),
    uri: options.uri,
    contexts,
    flags: [
      ['is_rotational', connection.isRotational()],
      ['is_read_only', connection.isReadOnly()],
      ['can_block_status_payload', connection.canBlockStatusPayload()],
      ['can_cache', connection.canCache()],
      ['can_df', connection.canDf()],
      ['can_fast_zero', connection.canFastZero()],
      ['can_flush', connection.canFlush()],
      ['can_fua', connection.canFua()],
      ['can_multi_conn', connection.canMultiConn()],
      ['can_trim', connection.canTrim()],
      ['can_zero', connection.canZero()],
    ],
    blockSizes: [
      ['block_size_minimum', connection.getBlockSize(SIZE_MINIMUM)],
      ['block_size_preferred', connection.getBlockSize(SIZE_PREFERRED)],
      ['block_size_maximum', connection.getBlockSize(SIZE_MAXIMUM)],
    ],
  };
}

/** opt_info, or opt_go where a server knows only that. */
export async function informed(connection: NbdConnection): Promise<void> {
  try {
    await connection.optInfo();
  } catch (error) {
    if (!connection.aioIsNegotiating()) throw error;
    await connection.optGo();
  }
}

const PROBE_LENGTH = 8192;

/** What file(1) says about the first bytes; null when it cannot be asked. */
async function probeContent(connection: NbdConnection, size: bigint): Promise<string | null> {
  const count = size < BigInt(PROBE_LENGTH) ? Number(size) : PROBE_LENGTH;
  const bytes = count === 0 ? Buffer.alloc(0) : await orNull(connection.pread(count, 0));
  if (bytes === null) return null;
  // file(1) looks less closely at a pipe, so that it gets a file.
  const folder = await mkdtemp(join(tmpdir(), 'nbd-info-'));
  try {
    const path = join(folder, 'content');
    await writeFile(path, bytes);
    return await fileSays(path);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function fileSays(path: string): Promise<string | null> {
  const { spawn } = await import('node:child_process');
  return new Promise((resolve) => {
    const child = spawn('file', ['-b', path], { stdio: ['ignore', 'pipe', 'ignore'] });
    let said = '';
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => (said += chunk));
    child.on('error', () => resolve(null));
    child.on('close', () => resolve(said === '' ? null : (said.split('\n')[0] ?? null)));
  });
}

async function orNull<T>(promise: Promise<T>): Promise<T | null> {
  try {
    return await promise;
  } catch {
    return null;
  }
}

function orElse<T>(get: () => T, otherwise: T): T {
  try {
    return get();
  } catch {
    return otherwise;
  }
}

/** One line per fact. */
export function reportText(report: ExportReport, paint: Paint): string {
  let text = `${paint.begin(COLOURS.boldBlack)}export=${jsonString(report.name)}:\n`;
  if (report.description !== '') text += `\tdescription: ${visible(report.description)}\n`;
  text += `\texport-size: ${sizeWithSuffix(report.size)}\n`;
  if (report.content !== null) text += `\tcontent: ${visible(report.content)}\n`;
  if (report.uri !== null) text += `\turi: ${visible(report.uri)}\n`;
  text += `${paint.end}${paint.begin(COLOURS.grey)}`;
  if (report.contexts !== null) {
    text += '\tcontexts:\n';
    for (const context of report.contexts) text += `\t\t${visible(context)}\n`;
  }
  for (const [name, value] of report.flags) {
    if (name.startsWith('can_')) {
      text += `${paint.begin(value ? COLOURS.green : COLOURS.red)}\t${name}: ${value}\n${paint.end}`;
    } else {
      text += `\t${name}: ${value}\n${name === 'is_rotational' ? paint.end : ''}`;
    }
  }
  for (const [name, bytes] of report.blockSizes) {
    if (bytes > 0) text += `\t${name}: ${sizeWithSuffix(BigInt(bytes))}\n`;
  }
  return text;
}

/** An element of the `exports` array, without what separates it from others. */
export function reportJson(report: ExportReport): string {
  const fields: string[] = [`"export-name": ${jsonString(report.name)}`];
  if (report.description !== '') fields.push(`"description": ${jsonString(report.description)}`);
  if (report.content !== null) fields.push(`"content": ${jsonString(report.content)}`);
  if (report.uri !== null) fields.push(`"uri": ${jsonString(report.uri)}`);
  if (report.contexts !== null) {
    const lines = report.contexts.map((context) => `\t\t${jsonString(context)}`);
    fields.push(`"contexts": [\n${lines.join(',\n')}${lines.length === 0 ? '' : '\n'}\t]`);
  }
  for (const [name, value] of report.flags) fields.push(`"${name}": ${value}`);
  for (const [name, bytes] of report.blockSizes) if (bytes > 0) fields.push(`"${name}": ${bytes}`);
  fields.push(`"export-size": ${report.size}`, `"export-size-str": "${humanSize(report.size)}"`);
  return `\t{\n${fields.map((field) => `\t${field}`).join(',\n')}\n\t}`;
}
