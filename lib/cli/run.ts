// Runs a command line and ends the process: finds the command, passes it its context, reports a failure in one line,
// and exits with 130 after Ctrl-C. Invariant: every cleanup registered with onEnd runs before the exit, and the exit code
// is 0 only if all output has been written.

import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { CliCommand, CommandContext } from './command.js';
import { CliError, Interruption, UsageError } from './errors.js';
import { parse } from './arguments.js';
import { exitCodeOf, leave, leaveNow, SIGNALS } from './leaving.js';
import { CLI_COMMANDS, commandsBelow, descriptions, findCommand, TOOLS } from './registry.js';
import { OutputClosed, StandardOutput } from './output/standard-io.js';
import { visible } from '../util/visible.js';

/** Milliseconds that a command may take to stop after a signal before it is abandoned. */
const STOP_DEADLINE = 500;
/** Milliseconds that an abandoned command may take to report its progress after its connections have been closed. */
const LAST_WORDS = 100;

/** Runs the command and ends the process. */
export async function run(words: readonly string[], script: string): Promise<void> {
  const output = new StandardOutput();
  const invoked = basename(script).replace(/\.[cm]?js$/, '');
  const program = Object.hasOwn(TOOLS, invoked)
    ? invoked
    : ['nbd', findCommand(words)?.name ?? words[0] ?? ''].join(' ').trimEnd();
  const { signal } = listenForSignals();
  let code: number;
  try {
    code = await main(words, invoked, output, signal);
  } catch (error) {
    code = await report(error, program, false);
  }
  const wasStopped = signal.aborted;
  try {
    // The reader may be slow. After a signal, do not wait for it.
    await Promise.race([output.finish(), interruption(signal)]);
  } catch (error) {
    // A failure of the command itself has already been reported, possibly for the same reason. A signal that came
    // earlier is already reflected in the exit code.
    const isKnown = wasStopped && error instanceof Interruption;
    if (!isKnown && (code === 0 || code === 2)) code = await report(error, program, false);
  }
  await leave(code);
}

function listenForSignals(): AbortController {
  const abort = new AbortController();
  for (const name of Object.keys(SIGNALS)) {
    process.on(name, () => {
      // The second signal ends the process at once.
      if (abort.signal.aborted) leaveNow(exitCodeOf(name));
      else abort.abort(new Interruption(exitCodeOf(name)));
    });
  }
  return abort;
}

/** Rejects with the interruption when the signal is aborted, or at once if it already is. */
function interruption(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    const onAbort = (): void => {
      reject(signal.reason as Error);
    };
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort);
  });
}

/** Reports a failure and returns its exit code. */
async function report(error: unknown, program: string, verbose: boolean): Promise<number> {
  if (!(error instanceof OutputClosed)) {
    const { formatFailure } = await import('./output/failure.js');
    process.stderr.write(formatFailure(error, program, verbose));
    if (error instanceof UsageError) process.stderr.write(`Try '${program} --help'.\n`);
  }
  return error instanceof CliError ? error.exitCode : 1;
}

async function main(
  words: readonly string[],
  invoked: string,
  output: StandardOutput,
  signal: AbortSignal,
): Promise<number> {
  const tool = TOOLS[invoked];
  const found = tool === undefined ? findCommand(words) : { name: tool, rest: words };
  const load = found === null ? undefined : CLI_COMMANDS[found.name];
  if (found === null || load === undefined) return withoutCommand(words, output, signal);
  const program = tool === undefined ? `nbd ${found.name}` : invoked;
  return runCommand(await load(), program, found.rest, output, signal);
}

async function withoutCommand(
  [name, ...rest]: readonly string[],
  output: StandardOutput,
  signal: AbortSignal,
): Promise<number> {
  const { overview, showVersion } = await import('./manual/help.js');
  const isHelp = (word: string | undefined): boolean => word === '--help' || word === '-h' || word === 'help';
  if (name === '--version' || name === '-V') {
    await output.write(showVersion('nbd'));
    return 0;
  }
  if (name === 'help' && rest[0] !== undefined) return main([...rest, '--help'], 'nbd', output, signal);
  if (isHelp(name)) {
    await output.write(await overview());
    return 0;
  }
  const group = name === undefined ? [] : commandsBelow(name);
  if (name !== undefined && group.length > 0 && isHelp(rest[0])) {
    await output.write(await overview(name));
    return 0;
  }
  if (name === undefined) process.stderr.write(await overview());
  else if (group.length > 0 && rest[0] === undefined) process.stderr.write(await overview(name));
  else if (group.length > 0) {
    const tried = visible(`${name} ${rest[0] ?? ''}`);
    process.stderr.write(`nbd: unknown command '${tried}'; 'nbd ${name} --help' lists the commands\n`);
  } else process.stderr.write(`nbd: unknown command '${visible(name)}'; 'nbd --help' lists the commands\n`);
  return 1;
}

async function runCommand(
  command: CliCommand,
  program: string,
  words: readonly string[],
  output: StandardOutput,
  signal: AbortSignal,
): Promise<number> {
  const cleanups: ((failed: boolean) => Promise<void> | void)[] = [];
  let verbose = words.includes('--verbose') || words.includes('-v');
  let code: number;
  let failed = false;
  let running: Promise<number | void> | undefined;
  /** The command settled after a signal, before it was abandoned. */
  let wasAwaited = false;
  try {
    const args = parse(command.spec, words);
    verbose = args.has('verbose');
    const shown = await showOnly(command, args, program);
    if (shown !== null) {
      await output.write(shown);
      return 0;
    }
    const context: CommandContext = {
      program,
      verbose,
      args,
      descriptions,
      signal,
      out: (text) => output.write(text),
      flushOutput: () => output.flush(),
      releaseOutput: () => {
        output.release();
      },
      warn: (line) => process.stderr.write(`${program}: ${visible(line)}\n`),
      onEnd: (cleanup) => cleanups.push(cleanup),
    };
    running = command.run(args, context);
    code = (await (command.endsBySignal === true ? running : untilStopped(running, signal))) ?? 0;
    wasAwaited = signal.aborted;
  } catch (error) {
    failed = true;
    code = error instanceof Interruption ? error.exitCode : await report(error, program, verbose);
  }
  for (const cleanup of cleanups.reverse()) {
    try {
      await cleanup(failed || signal.aborted);
    } catch (error) {
      // After a failure, the exit code is that of the command's own error.
      if (failed || signal.aborted) continue;
      failed = true;
      code = await report(error, program, verbose);
    }
  }
  if (!(signal.reason instanceof Interruption) || command.endsBySignal === true) return code;
  if (wasAwaited) return signal.reason.exitCode;
  // Without its connections, an abandoned command ends too, and reports its progress.
  await Promise.race([running?.catch(() => undefined), sleep(LAST_WORDS)]);
  return report(signal.reason, program, verbose);
}

/** Waits for a command. One that does not stop after a signal is abandoned: it may wait for something that never comes. */
async function untilStopped<Result>(running: Promise<Result>, signal: AbortSignal): Promise<Result> {
  let timer: NodeJS.Timeout | undefined;
  let onAbort = (): void => undefined;
  const stopped = new Promise<never>((_resolve, reject) => {
    onAbort = () => {
      timer = setTimeout(() => reject(signal.reason as Error), STOP_DEADLINE);
    };
    signal.addEventListener('abort', onAbort);
  });
  try {
    return await Promise.race([running, stopped]);
  } finally {
    signal.removeEventListener('abort', onAbort);
    clearTimeout(timer);
  }
}

/** The text for --help, --version and the two options that completion scripts use; null if the command is to run. */
async function showOnly(command: CliCommand, args: ReturnType<typeof parse>, program: string): Promise<string | null> {
  const asked = args.options.find(({ name }) => ['help', 'version', 'long-options', 'short-options'].includes(name));
  if (asked === undefined) return null;
  const help = await import('./manual/help.js');
  if (asked.name === 'help') return help.commandHelp(command.spec, program);
  if (asked.name === 'version') return help.showVersion(program);
  return asked.name === 'long-options' ? help.longOptions(command.spec) : help.shortOptions(command.spec);
}
