// The command line of the benchmarks.

import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type PeerName } from './rows.js';

export interface BenchOptions {
  readonly mode: 'full' | 'quick' | 'smoke';
  /** Parts of the identifiers of rows and checks; empty for all. */
  readonly only: readonly string[];
  /** Peers to compare with; empty for all. */
  readonly peers: readonly string[];
  readonly pairs: number;
  /** Of each measurement. */
  readonly seconds: number;
  readonly warmup: number;
  /** Seconds after which no further comparison begins. */
  readonly budget: number;
  readonly json: string;
  readonly markdown: boolean;
  readonly checks: boolean;
  readonly list: boolean;
  /** A copy of an earlier `dist/` to compare with. */
  readonly against: string | undefined;
  /** The nice value of the servers and of what is measured. */
  readonly priority: number;
  /** Whether reads clear their buffers first, in ours and in libnbd alike. */
  readonly initialize: boolean;
  /** Whether a program that does next to nothing takes the place of ours. */
  readonly ceiling: boolean;
}

const USAGE = `npm run bench -- [flags]
  --quick             the main rows within a minute
  --smoke             a few seconds: that everything runs and the data is right
  --only A,B          rows and checks named A or B, or whose names contain it (--list)
  --peer A,B          of libnbd, python, vates, fio, floor
  --against DIR       compare with a copy of an earlier dist/ only
  --ceiling           in place of ours a program in C that only counts the bytes of replies
  --pairs N           pairs of each comparison (5; quick 3)
  --seconds S         of each measurement (1; quick 0.25)
  --no-checks         rows only
  --no-initialize     reads do not clear their buffers, in ours and in libnbd
  --priority=N        nice value of everything that is started (0); below 0 needs root
  --markdown          print the tables as Markdown
  --json FILE         where the figures go (default: the temporary folder)
`;

const PEERS: readonly PeerName[] = ['libnbd', 'python', 'vates', 'fio', 'floor', 'baseline', 'connection'];

const MODES = {
  full: { pairs: 5, seconds: 1, warmup: 0.3, budget: Infinity },
  quick: { pairs: 3, seconds: 0.25, warmup: 0.2, budget: 45 },
  smoke: { pairs: 1, seconds: 0.05, warmup: 0.02, budget: Infinity },
} as const;

function list(value: string | undefined): string[] {
  return (value ?? '').split(',').filter((part) => part !== '');
}

function positive(name: string, value: string | undefined, otherwise: number): number {
  if (value === undefined) return otherwise;
  const number = Number(value);
  if (!(number > 0)) throw new Error(`--${name} must be a number above 0, not ${value}`);
  return number;
}

/** Undefined when the usage was requested and has been printed. */
export function readOptions(args: readonly string[]): BenchOptions | undefined {
  const { values } = parseArgs({
    args: [...args],
    options: {
      help: { type: 'boolean', short: 'h' },
      quick: { type: 'boolean' },
      smoke: { type: 'boolean' },
      only: { type: 'string' },
      peer: { type: 'string' },
      against: { type: 'string' },
      pairs: { type: 'string' },
      seconds: { type: 'string' },
      priority: { type: 'string' },
      'no-checks': { type: 'boolean' },
      'no-initialize': { type: 'boolean' },
      ceiling: { type: 'boolean' },
      markdown: { type: 'boolean' },
      json: { type: 'string' },
      list: { type: 'boolean' },
    },
  });
  if (values.help === true) {
    process.stdout.write(USAGE);
    return undefined;
  }
  const mode = values.smoke === true ? 'smoke' : values.quick === true ? 'quick' : 'full';
  const peers = values.against === undefined ? list(values.peer) : ['baseline'];
  const unknown = peers.filter((name) => !PEERS.some((peer) => peer === name));
  if (unknown.length > 0) throw new Error(`--peer: no ${unknown.join(', ')}; there are ${PEERS.join(', ')}`);
  return {
    mode,
    only: list(values.only),
    peers,
    pairs: Math.ceil(positive('pairs', values.pairs, MODES[mode].pairs)),
    seconds: positive('seconds', values.seconds, MODES[mode].seconds),
    warmup: MODES[mode].warmup,
    budget: MODES[mode].budget,
    json: values.json ?? join(tmpdir(), `nbd-sdk-bench-${mode}.json`),
    markdown: values.markdown ?? false,
    checks: values['no-checks'] !== true && mode === 'full' && values.against === undefined && values.ceiling !== true,
    list: values.list ?? false,
    against: values.against,
    priority: Number(values.priority ?? 0),
    initialize: values['no-initialize'] !== true,
    ceiling: values.ceiling ?? false,
  };
}
