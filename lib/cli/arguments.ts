// Parses the words of the command line as getopt_long does: options may be anywhere and may be abbreviated as long as
// they stay unambiguous, a value follows `=` or is the next word, and `--` ends the options. `[ CMD ARGS ]` is one
// operand; the words within it are not parsed. node:util's parseArgs does the lexing, but has no abbreviations, no
// optional values and no such operands.

import { parseArgs } from 'node:util';
import type { CliCommandSpec, OptionSpec } from './command-spec.js';
import { UsageError } from './errors.js';

/** An operand: a word, or the command that starts a server. */
export type Operand = { readonly word: string } | { readonly command: readonly string[] };

export interface GivenOption {
  readonly name: string;
  /** The spelling used, in full: `colour` when `--colo` was given for the option `color`. */
  readonly spelling: string;
  readonly value: string | undefined;
}

export class ParsedArguments {
  readonly operands: readonly Operand[];
  /** In the order given. */
  readonly options: readonly GivenOption[];

  constructor(options: readonly GivenOption[], operands: readonly Operand[]) {
    this.options = options;
    this.operands = operands;
  }

  has(name: string): boolean {
    return this.options.some((option) => option.name === name);
  }

  /** The last value given; undefined if the option was not given, or was given without a value. */
  value(name: string): string | undefined {
    return this.options.findLast((option) => option.name === name)?.value;
  }

  /** The one of these options that was given last. */
  last(...names: string[]): string | undefined {
    return this.options.findLast((option) => names.includes(option.name))?.name;
  }
}

/** Options that every command has. */
export const COMMON: readonly OptionSpec[] = [
  { names: ['help'], short: 'h', help: 'Show this help and exit.' },
  { names: ['verbose'], short: 'v', help: 'Print more: causes and stack traces of errors, and what was negotiated.' },
  { names: ['version'], short: 'V', help: 'Show the version and exit.' },
  { names: ['long-options'], hidden: true },
  { names: ['short-options'], hidden: true },
];

/** All options of a command. An option of the command replaces a common one of the same name. */
export function optionsOf(spec: CliCommandSpec): readonly OptionSpec[] {
  const own = new Set(spec.options.flatMap((option) => option.names));
  const shorts = new Set(spec.options.map((option) => option.short));
  return [
    ...spec.options,
    ...COMMON.filter((option) => !option.names.some((name) => own.has(name))).map((option) =>
      option.short !== undefined && shorts.has(option.short)
        ? { names: option.names, ...(option.help === undefined ? {} : { help: option.help }) }
        : option,
    ),
  ];
}

export function parse(spec: CliCommandSpec, words: readonly string[]): ParsedArguments {
  const options = optionsOf(spec);
  const byName = new Map(options.flatMap((option) => option.names.map((name) => [name, option] as const)));
  const { rest, commands } = takeCommands(words);
  const { tokens } = parseArgs({
    args: abbreviationsResolved(rest, byName),
    options: Object.fromEntries(
      [...byName].map(([name, option]) => [
        name,
        {
          type: option.takes === 'value' ? ('string' as const) : ('boolean' as const),
          ...shortOf(option, name),
        },
      ]),
    ),
    strict: false,
    allowPositionals: true,
    tokens: true,
  });

  const given: GivenOption[] = [];
  const operands: Operand[] = [];
  for (const token of tokens) {
    if (token.kind === 'positional') {
      const command = token.value.startsWith(MARK) ? commands[Number(token.value.slice(MARK.length))] : undefined;
      operands.push(command === undefined ? { word: token.value } : { command });
    } else if (token.kind === 'option') {
      const option = byName.get(token.name);
      const shown = token.rawName.startsWith('--') ? `'${token.rawName}'` : `-- '${token.rawName.slice(1)}'`;
      if (option === undefined) {
        throw new UsageError(shown.startsWith("'") ? `unrecognized option ${shown}` : `invalid option ${shown}`);
      }
      const value = token.value;
      if (option.takes === 'value' && value === undefined) {
        throw new UsageError(`option ${shown.replace('-- ', '')} requires an argument`);
      }
      if ((option.takes ?? 'nothing') === 'nothing' && value !== undefined) {
        throw new UsageError(`option ${shown} doesn't allow an argument`);
      }
      given.push({ name: option.names[0] ?? token.name, spelling: token.name, value });
    }
  }
  return new ParsedArguments(given, operands);
}

/** parseArgs supports one letter per name. */
function shortOf(option: OptionSpec, name: string): { short?: string } {
  const short = option.names[0] === name ? option.short : option.names[1] === name ? option.secondShort : undefined;
  return short === undefined ? {} : { short };
}

/** Placeholder for a `[ CMD ]` among the words. An operand on a command line cannot contain a NUL. */
const MARK = '\0command ';

/**
 * Extracts each `[ CMD ARGS ]`, so that the options of the server are not parsed as ours. It ends at the first `]` if
 * another `[` follows, otherwise at the last one.
 */
function takeCommands(words: readonly string[]): { rest: string[]; commands: (readonly string[])[] } {
  const rest: string[] = [];
  const commands: (readonly string[])[] = [];
  for (let at = 0; at < words.length; at++) {
    const word = words[at] as string;
    if (word !== '[') {
      rest.push(word);
      continue;
    }
    const next = words.indexOf('[', at + 1);
    const end = next === -1 ? words.lastIndexOf(']') : words.indexOf(']', at + 1);
    if (end <= at) throw new UsageError("'[' without ']'", { hint: 'write [ CMD ARGS ... ] with spaces around both' });
    if (end === at + 1) throw new UsageError('no command between [ and ]');
    rest.push(`${MARK}${String(commands.length)}`);
    commands.push(words.slice(at + 1, end));
    at = end;
  }
  return { rest, commands };
}

/** Expands `--tot` to `--totals` if no other option begins with it; aliases of one option are not ambiguous. */
function abbreviationsResolved(words: readonly string[], byName: ReadonlyMap<string, OptionSpec>): string[] {
  const end = words.indexOf('--');
  return words.map((word, at) => {
    if (!word.startsWith('--') || word === '--' || (end !== -1 && at > end)) return word;
    const equals = word.indexOf('=');
    const name = word.slice(2, equals === -1 ? undefined : equals);
    const before = words[at - 1];
    if (byName.has(name) || (before !== undefined && byName.get(before.slice(2))?.takes === 'value')) return word;
    const all = [...byName.keys()].filter((each) => each.startsWith(name));
    const firm = all.filter((each) => byName.get(each)?.yields !== true);
    const candidates = firm.length === 0 ? all : firm;
    if (new Set(candidates.map((each) => byName.get(each))).size > 1) {
      const shown = candidates.map((each) => `'--${each}'`).join(' ');
      throw new UsageError(`option '--${name}' is ambiguous; possibilities: ${shown}`);
    }
    const [full] = candidates;
    return full === undefined ? word : `--${full}${equals === -1 ? '' : word.slice(equals)}`;
  });
}
