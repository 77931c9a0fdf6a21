// How a command is described: parsing, --help and completion are made from it.

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

export interface CliCommandSpec {
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
