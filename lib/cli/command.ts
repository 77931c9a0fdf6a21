// The interface of a command: its description, from which parsing, --help and completion are derived, and the function
// that runs it.

import type { ParsedArguments } from './arguments.js';
import type { CliCommandSpec } from './command-spec.js';

/** The environment of a running command. */
export interface CommandContext {
  /** The name that starts each message: `nbd info`, or `nbdinfo` when run under that name. */
  readonly program: string;
  readonly verbose: boolean;
  readonly args: ParsedArguments;
  /** The descriptions of all commands. */
  descriptions(): Promise<readonly CliCommandSpec[]>;
  /** Aborted by Ctrl-C and SIGTERM. */
  readonly signal: AbortSignal;
  /** Writes to standard output. Resolves when the data has been accepted. */
  out(text: string | Uint8Array): Promise<void>;
  /** Calls fsync on standard output if it is a file or a device. */
  flushOutput(): Promise<void>;
  /** Leaves standard output to a command that uses it for other things than text. */
  releaseOutput(): void;
  /** Writes a line to standard error, prefixed with the program's name. */
  warn(line: string): void;
  /**
   * Registers a cleanup, which runs however the command ends; last in, first out. `failed` is true after an error or an
   * interruption. After a success, the rejection of a cleanup makes the command fail.
   */
  onEnd(cleanup: (failed: boolean) => Promise<void> | void): void;
}

export interface CliCommand {
  readonly spec: CliCommandSpec;
  /** The command normally ends by a signal; its own exit code is used even then. */
  readonly endsBySignal?: boolean;
  /** Resolves with the exit code; undefined stands for 0. */
  run(args: ParsedArguments, context: CommandContext): Promise<number | void>;
}
