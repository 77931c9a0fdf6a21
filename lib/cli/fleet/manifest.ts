// The manifest of `nbd fleet plan`: one job a line, as JSON. Invariant: nothing is planned before every line has been
// checked, unless the user has asked for bad lines to be left out.

import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import type { FleetJob } from '../../fleet/index.js';
import { checkJob, isPair, isWriting } from '../../fleet/job.js';
import { systemReason } from '../../util/system-reason.js';
import { CliError } from '../errors.js';
import { messageOf } from '../output/failure.js';

/** What a line takes from the command line if it does not have it itself. */
export interface JobDefaults {
  readonly kind?: string | undefined;
  readonly rangeSize?: number | undefined;
  readonly sourceLimit?: number | undefined;
  readonly destinationLimit?: number | undefined;
  readonly rate?: number | undefined;
  readonly verify?: boolean | undefined;
}

export interface Manifest {
  /** Lines with a job. */
  readonly jobs: number;
  /** What is wrong, by line: the first 100. */
  readonly problems: readonly string[];
  /** Lines that are not a job. */
  readonly bad: number;
  /** Reads the jobs again, in order, without the bad lines. */
  read(): AsyncGenerator<FleetJob, void, undefined>;
}

const MOST_PROBLEMS = 100;

/** Checks a manifest; `-` is standard input, which is kept in memory because it can be read only once. */
export async function openManifest(path: string, defaults: JobDefaults): Promise<Manifest> {
  const kept = path === '-' ? await allOf(linesOf(process.stdin)) : await regularFile(path);
  const lines = (): AsyncIterable<string> | Iterable<string> =>
    kept ?? linesOf(createReadStream(path, { encoding: 'utf8' }), path);
  let jobs = 0;
  let bad = 0;
  const problems: string[] = [];
  for await (const { number, job, problem } of parsed(lines(), defaults)) {
    if (job !== undefined) {
      jobs++;
      continue;
    }
    bad++;
    if (problems.length < MOST_PROBLEMS) problems.push(`line ${number}: ${problem}`);
  }
  return {
    ...{ jobs, problems, bad },
    async *read() {
      for await (const { job } of parsed(lines(), defaults)) if (job !== undefined) yield job;
    },
  };
}

type Line =
  | { readonly number: number; readonly job: FleetJob; readonly problem?: undefined }
  | { readonly number: number; readonly job?: undefined; readonly problem: string };

/** Blank lines, and lines that begin with `#`, are passed over. */
async function* parsed(
  lines: AsyncIterable<string> | Iterable<string>,
  defaults: JobDefaults,
): AsyncGenerator<Line, void, undefined> {
  let number = 0;
  for await (const line of lines) {
    number++;
    const text = (number === 1 ? line.replace(/^\uFEFF/, '') : line).trim();
    if (text === '' || text.startsWith('#')) continue;
    try {
      yield { number, job: jobOf(text, defaults) };
    } catch (error) {
      yield { number, problem: messageOf(error) };
    }
  }
}

function jobOf(text: string, defaults: JobDefaults): FleetJob {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new CliError(`not JSON: ${(error as Error).message}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new CliError('not a JSON object such as {"kind":"copy","source":"nbd://…","destination":"nbd://…"}');
  }
  const job = withDefaults(value, defaults);
  checkJob('job', job);
  return job as FleetJob;
}

/** A default that has no meaning for the kind of a line is not applied to it. */
function withDefaults(given: Partial<FleetJob>, defaults: JobDefaults): Partial<FleetJob> {
  const kind = given.kind ?? (defaults.kind as FleetJob['kind'] | undefined);
  const limits = {
    ...(defaults.sourceLimit === undefined ? {} : { source: defaults.sourceLimit }),
    ...(kind === undefined || !isPair(kind) || defaults.destinationLimit === undefined
      ? {}
      : { destination: defaults.destinationLimit }),
    ...(kind === undefined || !isWriting(kind) || defaults.rate === undefined ? {} : { rate: defaults.rate }),
    ...(typeof given.limits === 'object' ? given.limits : {}),
  };
  const isGiven = given.limits === undefined || typeof given.limits === 'object';
  return {
    ...(kind === undefined ? {} : { kind }),
    ...(defaults.rangeSize === undefined ? {} : { rangeSize: defaults.rangeSize }),
    ...(kind === undefined || !isWriting(kind) || defaults.verify === undefined ? {} : { verify: defaults.verify }),
    ...given,
    ...(isGiven && Object.keys(limits).length > 0 ? { limits } : {}),
  };
}

/** Null for a file that can be read twice; otherwise, for a pipe, its lines. */
async function regularFile(path: string): Promise<string[] | null> {
  try {
    if ((await stat(path)).isFile()) return null;
  } catch (error) {
    throw unreadable(path, error);
  }
  return allOf(linesOf(createReadStream(path, { encoding: 'utf8' }), path));
}

async function* linesOf(stream: NodeJS.ReadableStream, path?: string): AsyncGenerator<string, void, undefined> {
  // readline reports no error of its input to a loop over its lines.
  let failure: unknown;
  stream.on('error', (error) => {
    failure = error;
    lines.close();
  });
  const lines = createInterface({ input: stream, crlfDelay: Infinity });
  for await (const line of lines) yield line;
  if (failure !== undefined) throw unreadable(path ?? 'standard input', failure);
}

async function allOf(lines: AsyncIterable<string>): Promise<string[]> {
  const all: string[] = [];
  for await (const line of lines) all.push(line);
  return all;
}

const unreadable = (path: string, error: unknown): CliError =>
  new CliError(`${path}: the manifest cannot be read: ${systemReason(error)}`, { cause: error });
