// From the command line's words to an exit code: finds the command, hands it its context, tells failures in one line,
// and ends with 130 after Ctrl-C. Invariant: whatever a command registered with onEnd has run before the exit.

import { basename } from 'node:path';
import { type Command, type CommandContext, CliError, Interruption, UsageError } from './command.js';
import { parse } from './arguments.js';
import { COMMANDS, TOOLS } from './registry.js';
import { visible } from '../util/visible.js';

const SIGNALS: Readonly<Record<string, number>> = { SIGINT: 130, SIGTERM: 143 };
/** What a shell says of a program that SIGPIPE has ended, which Node ignores. */
const PIPE_BROKEN = 141;
/** How long a command may take to stop after a signal before the process ends anyway. */
const STOP_DEADLINE = 3000;

/** Runs the command and ends the process. */
export async function run(words: readonly string[], script: string): Promise<void> {
  const code = await main(words, basename(script).replace(/\.[cm]?js$/, ''));
  // Standard output may be a pipe whose reader is slow; what was written to it must arrive.
  await new Promise<void>((resolve) => {
    if (process.stdout.destroyed) resolve();
    else process.stdout.write('', () => resolve());
  });
  process.exit(code);
}

async function main(words: readonly string[], invoked: string): Promise<number> {
  const tool = TOOLS[invoked];
  const [first, ...others] = words;
  const name = tool ?? first;
  const rest = tool === undefined ? others : words;
  const load = name !== undefined && Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (load === undefined) return withoutCommand(name, rest);
  const program = tool === undefined ? `nbd ${name ?? ''}` : invoked;
  return runCommand(await load(), program, rest);
}

async function withoutCommand(name: string | undefined, rest: readonly string[]): Promise<number> {
  const { overview, showVersion } = await import('./help.js');
  if (name === '--version' || name === '-V') {
    await write(await showVersion('nbd'));
    return 0;
  }
  if (name === 'help' && rest[0] !== undefined) return main([rest[0], '--help'], 'nbd');
  if (name === '--help' || name === '-h' || name === 'help') {
    await write(await overview());
    return 0;
  }
  if (name === undefined) process.stderr.write(await overview());
  else process.stderr.write(`nbd: there is no command '${visible(name)}'; 'nbd --help' lists them\n`);
  return 1;
}

async function runCommand(command: Command, program: string, words: readonly string[]): Promise<number> {
  const abort = new AbortController();
  const cleanups: (() => Promise<void> | void)[] = [];
  const onSignal = (name: string): void => {
    if (abort.signal.aborted) process.exit(SIGNALS[name]);
    abort.abort(new Interruption(SIGNALS[name] ?? 1));
    setTimeout(() => process.exit(SIGNALS[name]), STOP_DEADLINE).unref();
  };
  for (const name of Object.keys(SIGNALS)) process.on(name, onSignal);
  // `nbd dump … | head`: the reader has seen enough. Nothing is said, and no success is claimed.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(PIPE_BROKEN);
  });
  let verbose = words.includes('--verbose') || words.includes('-v');
  try {
    const args = parse(command.spec, words);
    verbose = args.has('verbose');
    const shown = await showOnly(command, args, program);
    if (shown !== null) {
      await write(shown);
      return 0;
    }
    const context: CommandContext = {
      program,
      verbose,
      signal: abort.signal,
      out: write,
      warn: (line) => process.stderr.write(`${program}: ${visible(line)}\n`),
      onEnd: (cleanup) => cleanups.push(cleanup),
    };
    const code = (await command.run(args, context)) ?? 0;
    return interruptedBy(abort.signal) ?? code;
  } catch (error) {
    const { tell } = await import('./failure.js');
    process.stderr.write(tell(error, program, verbose));
    if (error instanceof UsageError) process.stderr.write(`Try '${program} --help'.\n`);
    return interruptedBy(abort.signal) ?? (error instanceof CliError ? error.exitCode : 1);
  } finally {
    for (const cleanup of cleanups.reverse()) {
      try {
        await cleanup();
      } catch {
        // The command's own outcome is what counts.
      }
    }
  }
}

/** The exit code that a signal asked for; null when none came. */
function interruptedBy(signal: AbortSignal): number | null {
  return signal.reason instanceof Interruption ? signal.reason.exitCode : null;
}

/** --help, --version and the two that completion scripts ask: text instead of a run. */
async function showOnly(command: Command, args: ReturnType<typeof parse>, program: string): Promise<string | null> {
  const asked = args.options.find(({ name }) => ['help', 'version', 'long-options', 'short-options'].includes(name));
  if (asked === undefined) return null;
  const help = await import('./help.js');
  if (asked.name === 'help') return help.commandHelp(command.spec, program);
  if (asked.name === 'version') return help.showVersion(program);
  return asked.name === 'long-options' ? help.longOptions(command.spec) : help.shortOptions(command.spec);
}

function write(text: string | Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(text, (error) => {
      if (error == null) resolve();
      else reject(error);
    });
  });
}
