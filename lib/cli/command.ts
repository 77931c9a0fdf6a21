// What a command of the command line is: a description, from which parsing, --help and completion are made, and a
// function.

import type { ParsedArguments } from './arguments.js';
import type { CliCommandSpec } from './command-spec.js';

/** What a command runs in. */
export interface CommandContext {
  /** The name to begin messages with: `nbd info`, or `nbdinfo` when run under that name. */
  readonly program: string;
  readonly verbose: boolean;
  readonly args: ParsedArguments;
  /** The names of all commands. */
  readonly commands: readonly string[];
  /** Aborted by Ctrl-C and SIGTERM. */
  readonly signal: AbortSignal;
  /** Writes to standard output and waits until it has taken it. */
  out(text: string | Uint8Array): Promise<void>;
  /** Puts what was written to standard output on permanent storage, where it is a file or device. */
  flushOutput(): Promise<void>;
  /** Gives standard output up to a command that uses it for something else than text. */
  releaseOutput(): void;
  /** Writes a line to standard error, with the program's name in front. */
  warn(line: string): void;
  /**
   * Runs when the command ends in any way; last in, first out. `failed`: it came to no good end. Where it did, what a
   * cleanup rejects with is how the command went.
   */
  onEnd(cleanup: (failed: boolean) => Promise<void> | void): void;
}

export interface CliCommand {
  readonly spec: CliCommandSpec;
  /** A signal is how it is meant to end: its own exit code counts then. */
  readonly endsBySignal?: boolean;
  /** Resolves with the exit code; nothing is 0. */
  run(args: ParsedArguments, context: CommandContext): Promise<number | void>;
}
