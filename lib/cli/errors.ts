// The errors of the command line.

/** A failure that is reported in one line, with an optional hint on a second line. */
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

/** Incorrect usage of the command line. */
export class UsageError extends CliError {}

/** The reason with which the signal of a command is aborted. */
export class Interruption extends CliError {
  constructor(exitCode: number) {
    super('interrupted', { exitCode });
  }
}
