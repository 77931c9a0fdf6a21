// Reports progress: a bar for people, or `N/100` lines on a file descriptor for programs (nbdcopy's --progress=FD).
// Both begin with 0 and end with 100, even if there is nothing to do.

import { writeSync } from 'node:fs';
import type { SingleBar } from 'cli-progress';
import { MovingRate, type Progress as BulkProgress } from '../../bulk/progress.js';
import type { ParsedArguments } from '../arguments.js';
import type { CommandContext } from '../command.js';
import type { OptionSpec } from '../command-spec.js';
import { duration, parseCount, roundSize } from './text.js';

/** Bytes per second, recently, and milliseconds left. */
export type Speed = Pick<BulkProgress, 'rate' | 'eta'>;

export interface Progress {
  /**
   * Bytes done so far. With `speed`, the bar shows its rate, which leaves out holes, and its time left; without it, all
   * bytes count as moved.
   */
  update(done: number, speed?: Speed): void;
  /** The work ended early: leaves the bar as it is. */
  stop(): void;
  /** The work is complete: shows 100 %. */
  finish(): void;
}

export const PROGRESS_OPTION: OptionSpec = {
  names: ['progress'],
  short: 'p',
  takes: 'optional',
  value: 'FD',
  help: 'Show a progress bar on standard error; given a file descriptor, write lines N/100 to it instead.',
};

const NOTHING: Progress = { update: () => undefined, stop: () => undefined, finish: () => undefined };

/** Creates the progress that the options request. With `automatic`, a terminal gets a bar even without the option. */
export async function makeProgress(
  args: ParsedArguments,
  total: number,
  context: CommandContext,
  automatic = false,
): Promise<Progress> {
  if (args.has('progress')) {
    const fd = args.value('progress');
    if (fd !== undefined) return machineProgress(parseCount('progress', fd, 0), total);
  } else if (!automatic || !process.stderr.isTTY) {
    return NOTHING;
  }
  const progress = await barProgress(total);
  context.onEnd(() => progress.stop());
  return progress;
}

/**
 * Runs `work` with progress. If it fails or is interrupted, prints the text of `partial`, which describes how much was
 * done, and rethrows the error.
 */
export async function withProgress<Result>(
  args: ParsedArguments,
  total: number,
  context: CommandContext,
  partial: (done: string, total: string) => string,
  work: (report: (done: number | bigint, speed?: Speed) => void) => Promise<Result>,
): Promise<Result> {
  const progress = await makeProgress(args, total, context);
  let done = 0;
  try {
    const result = await work((now, speed) => {
      done = Number(now);
      progress.update(done, speed);
    });
    progress.finish();
    return result;
  } catch (error) {
    progress.stop();
    context.warn(partial(roundSize(done), roundSize(total)));
    throw error;
  }
}

function machineProgress(fd: number, total: number): Progress {
  let shown = -1;
  const show = (percent: number): void => {
    if (percent <= shown) return;
    shown = percent;
    try {
      writeSync(fd, `${percent}/100\n`);
    } catch {
      // The reader has closed its end; the work continues.
    }
  };
  show(0);
  return {
    update: (done) => show(Math.min(99, Math.floor((100 * done) / Math.max(total, 1)))),
    stop: () => undefined,
    finish: () => show(100),
  };
}

/** Milliseconds without an update after which the bar shows that nothing moves, and between two looks. */
const STALLED = 5000;
const LOOK = 1000;

/** The speed that a bar shows when its last update was `idle` milliseconds ago: it falls to 0 while nothing moves. */
export function shownSpeed({ rate, eta }: Speed, idle: number): Speed {
  // Updates of slow requests are a second apart.
  if (idle < 2 * LOOK) return { rate, eta };
  const left = Math.max(0, 1 - idle / STALLED);
  return { rate: rate * left, eta: left === 0 ? null : eta };
}

async function barProgress(total: number): Promise<Progress> {
  const { SingleBar, Presets } = await import('cli-progress');
  const begun = performance.now();
  const recent = new MovingRate(begun);
  let done = 0;
  let speed: Speed = { rate: 0, eta: null };
  let ended = false;
  let isComplete = false;
  const bar: SingleBar = new SingleBar(
    {
      format: '{percentage}% [{bar}] {amount}  {rate}/s  {left} left',
      barsize: 32,
      hideCursor: true,
      stopOnComplete: false,
      noTTYOutput: true,
      notTTYSchedule: 1000,
      // The bar must not handle signals: the command itself ends it.
      gracefulExit: false,
    },
    Presets.legacy,
  );
  const measured = (value: number): Speed => {
    const now = performance.now();
    return {
      rate: recent.moved(value - done, now),
      eta: value > 0 ? ((total - value) * (now - begun)) / value : null,
    };
  };
  let updated = begun;
  const facts = (): Record<string, string> => {
    const { rate, eta } = isComplete ? speed : shownSpeed(speed, performance.now() - updated);
    return {
      amount: roundSize(done),
      rate: roundSize(rate),
      left: duration(eta === null ? Infinity : eta / 1000),
    };
  };
  // With a total of 0, the bar would show 100 % at once.
  const scale = Math.max(total, 1);
  bar.start(scale, 0, facts());
  const looks = setInterval(() => {
    if (performance.now() - updated >= 2 * LOOK) bar.update(done, facts());
  }, LOOK);
  looks.unref();
  const end = (): void => {
    if (ended) return;
    ended = true;
    clearInterval(looks);
    bar.update(isComplete ? scale : done, facts());
    bar.stop();
  };
  return {
    update: (value, given) => {
      speed = given ?? measured(value);
      done = value;
      updated = performance.now();
      if (!ended) bar.update(value, facts());
    },
    stop: end,
    finish: () => {
      done = total;
      speed = { rate: speed.rate, eta: 0 };
      isComplete = true;
      end();
    },
  };
}
