// Reports progress: a bar for people, or `N/100` lines on a file descriptor for programs (nbdcopy's --progress=FD).
// Both begin with 0 and end with 100, even if there is nothing to do.

import { writeSync } from 'node:fs';
import type { SingleBar } from 'cli-progress';
import type { ParsedArguments } from '../arguments.js';
import type { CommandContext } from '../command.js';
import type { OptionSpec } from '../command-spec.js';
import { duration, parseCount, roundSize } from './text.js';

export interface Progress {
  /** Bytes done so far. */
  update(done: number): void;
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
  work: (report: (done: number | bigint) => void) => Promise<Result>,
): Promise<Result> {
  const progress = await makeProgress(args, total, context);
  let done = 0;
  try {
    const result = await work((now) => {
      done = Number(now);
      progress.update(done);
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

async function barProgress(total: number): Promise<Progress> {
  const { SingleBar, Presets } = await import('cli-progress');
  const begun = Date.now();
  let done = 0;
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
  const facts = (): Record<string, string> => {
    const seconds = Math.max((Date.now() - begun) / 1000, 0.001);
    const rate = done / seconds;
    return { amount: roundSize(done), rate: roundSize(rate), left: duration((total - done) / rate) };
  };
  // With a total of 0, the bar would show 100 % at once.
  const scale = Math.max(total, 1);
  bar.start(scale, 0, facts());
  const end = (): void => {
    if (ended) return;
    ended = true;
    bar.update(isComplete ? scale : done, facts());
    bar.stop();
  };
  return {
    update: (value) => {
      done = value;
      if (!ended) bar.update(value, facts());
    },
    stop: end,
    finish: () => {
      done = total;
      isComplete = true;
      end();
    },
  };
}
