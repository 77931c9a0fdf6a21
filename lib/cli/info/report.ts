// The output of `nbd info` for one export, as text and as JSON, in nbdinfo's layout.

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type NbdConnection, SIZE_MAXIMUM, SIZE_MINIMUM, SIZE_PREFERRED } from '../sdk.js';
import { COLOURS, humanSize, jsonString, type Paint, sizeWithSuffix } from '../output/text.js';
import type { PartitionTable } from '../../bulk/partitions/table.js';
import { partitionsJson, partitionsText } from './partitions.js';
import { visible } from '../../util/visible.js';

/** The information that is shown about an export. */
export interface ExportReport {
  readonly name: string;
  readonly description: string;
  readonly size: bigint;
  readonly content: string | null;
  /** Null if the export has no partition table; undefined if it was not asked for. */
  readonly partitions?: PartitionTable | null;
  readonly uri: string | null;
  readonly contexts: readonly string[] | null;
  /** In the order in which they are shown. */
  readonly flags: readonly (readonly [name: string, value: boolean])[];
  readonly blockSizes: readonly (readonly [name: string, bytes: number])[];
}

/** Parameters of collectReport(). */
export interface ReportOptions {
  readonly description?: string;
  readonly uri: string | null;
  readonly content: boolean;
  readonly partitions: boolean;
  /** Opens another connection in option mode, because this one is still needed for other exports. */
  readonly another?: (exportName: string) => Promise<NbdConnection>;
}

/**
 * Collects the information from the server. The connection must be in option mode (or already open, if the server does
 * not support option mode) and its export name must be set. Afterwards the export may be open.
 */
export async function collectReport(connection: NbdConnection, options: ReportOptions): Promise<ExportReport> {
  if (connection.aioIsNegotiating()) {
    connection.setRequestMetaContext(false);
    await informed(connection);
  }
  const contexts = connection.aioIsNegotiating() ? await orNull(connection.optListMetaContext()) : null;
  const facts = factsOf(connection, options, contexts);
  if (!opensExport(options) && facts.size > 0n) return { ...facts, content: null };
  // Empty exports are rare, but nbd-server 3.16 to 3.27 reports a size of 0 for every export in reply to NBD_OPT_INFO.
  // The size that it reports when the export is opened is correct.
  const opened = await openExport(connection, options);
  if (opened === null) return { ...facts, content: null };
  try {
    const better = factsOf(opened, options, contexts);
    const content = options.content ? await probeContent(opened, better.size) : null;
    if (!options.partitions) return { ...better, content };
    const { partitions } = await import('../../bulk/partitions/partitions.js');
    return { ...better, content, partitions: await partitions(opened) };
  } finally {
    if (opened !== connection) await opened.shutdown();
  }
}

/** Whether what is asked for is within the export. */
export const opensExport = ({ content, partitions }: Pick<ReportOptions, 'content' | 'partitions'>): boolean =>
  content || partitions;

/** Opens the export. Null if the server refuses; then only its reply to NBD_OPT_INFO is available. */
async function openExport(connection: NbdConnection, options: ReportOptions): Promise<NbdConnection | null> {
  if (!connection.aioIsNegotiating()) return connection;
  if (opensExport(options)) {
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
): Omit<ExportReport, 'content' | 'partitions'> {
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

/** Requests the information about the export: with optInfo(), or with optGo() if the server supports only that. */
export async function informed(connection: NbdConnection): Promise<void> {
  try {
    await connection.optInfo();
  } catch (error) {
    if (!connection.aioIsNegotiating()) throw error;
    await connection.optGo();
  }
}

const PROBE_LENGTH = 8192;

/** The output of file(1) for the first bytes of the export; null if it cannot be run. */
async function probeContent(connection: NbdConnection, size: bigint): Promise<string | null> {
  const count = size < BigInt(PROBE_LENGTH) ? Number(size) : PROBE_LENGTH;
  const bytes = count === 0 ? Buffer.alloc(0) : await orNull(connection.pread(count, 0));
  if (bytes === null) return null;
  // file(1) detects less on a pipe, so it gets a file.
  const folder = await mkdtemp(join(tmpdir(), 'nbd-info-'));
  try {
    const path = join(folder, 'content');
    await writeFile(path, bytes);
    return await runFile(path);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function runFile(path: string): Promise<string | null> {
  const { spawn } = await import('node:child_process');
  return new Promise((resolve) => {
    const child = spawn('file', ['-b', path], { stdio: ['ignore', 'pipe', 'ignore'] });
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => (output += chunk));
    child.on('error', () => resolve(null));
    child.on('close', () => resolve(output === '' ? null : (output.split('\n')[0] ?? null)));
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

/** The report as text, one property per line. */
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
  return report.partitions === undefined ? text : text + partitionsText(report.partitions);
}

/** The report as an element of the JSON array `exports`, without a separator. */
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
  if (report.partitions !== undefined) fields.push(`"partitions": ${partitionsJson(report.partitions)}`);
  fields.push(`"export-size": ${report.size}`, `"export-size-str": "${humanSize(report.size)}"`);
  return `\t{\n${fields.map((field) => `\t${field}`).join(',\n')}\n\t}`;
}
