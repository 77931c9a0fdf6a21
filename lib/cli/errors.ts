// The errors of the command line.

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
