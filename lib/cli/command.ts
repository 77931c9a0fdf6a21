// What a command of the command line is: a description, from which parsing, --help and completion are made, and a
// function.

import type { ParsedArguments } from './arguments.js';

/** An option. The first of its names is how `ParsedArguments` knows it. */
export interface OptionSpec {
  readonly names: readonly string[];
  readonly short?: string;
  /** A second letter; the option then has a second name, too. */
  readonly secondShort?: string;
  /** `optional` takes its value only after `=`, as getopt_long has it. */
  readonly takes?: 'nothing' | 'value' | 'optional';
  /** How help calls the value. */
  readonly value?: string;
  /** Left out of help when missing. */
  readonly help?: string;
  /** An alias that is not listed by --long-options: for spellings beyond libnbd's. */
  readonly hidden?: boolean;
  /** Does not make an abbreviation ambiguous that names another option: for what libnbd's tools do not have. */
  readonly yields?: boolean;
}

export interface CommandSpec {
  readonly name: string;
  /** libnbd's tool whose options these are. */
  readonly tool?: string;
  readonly summary: string;
  readonly usage: readonly string[];
  /** Paragraphs for help. */
  readonly description?: readonly string[];
  readonly options: readonly OptionSpec[];
  readonly examples: readonly (readonly [command: string, what: string])[];
}

/** What a command runs in. */
export interface CommandContext {
  /** The name to begin messages with: `nbd info`, or `nbdinfo` when run under that name. */
  readonly program: string;
  readonly verbose: boolean;
  readonly args: ParsedArguments;
  /** Aborted by Ctrl-C and SIGTERM. */
  readonly signal: AbortSignal;
  /** Writes to standard output and waits until it has taken it. */
  out(text: string | Uint8Array): Promise<void>;
  /** Writes a line to standard error, with the program's name in front. */
  warn(line: string): void;
  /** Runs when the command ends in any way; last in, first out. */
  onEnd(cleanup: () => Promise<void> | void): void;
}

export interface Command {
  readonly spec: CommandSpec;
  /** Resolves with the exit code; nothing is 0. */
  run(args: ParsedArguments, context: CommandContext): Promise<number | void>;
}

/** A failure that is told in one line, with the way out on a second one if there is one. */
export class CliError extends Error {
  readonly hint: string | undefined;
  readonly exitCode: number;

  constructor(message: string, options: { hint?: string; cause?: unknown; exitCode?: number } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'CliError';
    this.hint = options.hint;
    this.exitCode = options.exitCode ?? 1;
  }
}

/** Wrong use of the command line. */
export class UsageError extends CliError {}

/** What the signal of a command is aborted with. */
export class Interruption extends CliError {
  constructor(exitCode: number) {
    super('interrupted', { exitCode });
  }
}
