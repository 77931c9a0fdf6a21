// The description of a command, from which parsing, --help and completion are derived.

/** An option. `ParsedArguments` refers to it by the first of its names. */
export interface OptionSpec {
  readonly names: readonly string[];
  readonly short?: string;
  /** A second letter, for the second name of the option. */
  readonly secondShort?: string;
  /** An `optional` value must follow `=`, as with getopt_long. */
  readonly takes?: 'nothing' | 'value' | 'optional';
  /** Placeholder for the value in the help. */
  readonly value?: string;
  /**
   * The values that completion offers. Default: files for a placeholder that begins with FILE or PATH, folders for DIR,
   * else none.
   */
  readonly choices?: readonly string[];
  /** An option without this text is not shown in the help. */
  readonly help?: string;
  /** Not listed by --long-options and --short-options. */
  readonly hidden?: boolean;
  /**
   * An abbreviation that also matches another option means the other one. Set for options that libnbd's tools do not
   * have, so that abbreviations that work with those tools work here.
   */
  readonly yields?: boolean;
}

export interface CliCommandSpec {
  readonly name: string;
  /** The tool of libnbd that has these options. */
  readonly tool?: string;
  readonly summary: string;
  readonly usage: readonly string[];
  /** The operands that completion offers. Default: servers. */
  readonly operands?: {
    readonly servers?: boolean;
    readonly files?: boolean;
    readonly choices?: readonly string[];
  };
  /** Paragraphs of the section DESCRIPTION. */
  readonly description?: readonly string[];
  readonly options: readonly OptionSpec[];
  readonly examples: readonly (readonly [command: string, what: string])[];
}
