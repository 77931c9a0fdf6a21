// What completion scripts are made of: the commands with their options, values and operands, taken from the descriptions
// of the commands. The scripts are static: nothing is started when Tab is pressed.

import { optionsOf } from '../arguments.js';
import type { CliCommandSpec, OptionSpec } from '../command-spec.js';

/** A word that is offered, and what it means. */
export type Offer = readonly [word: string, what: string];

/** What a value may be. */
export type Values = 'none' | 'file' | 'folder' | readonly string[];

export interface CompletedOption {
  /** The name that is offered, without dashes. */
  readonly name: string;
  /** All names, and letters. */
  readonly names: readonly string[];
  readonly letters: readonly string[];
  readonly takes: 'nothing' | 'value' | 'optional';
  readonly placeholder: string;
  readonly values: Values;
  readonly what: string;
  readonly isRepeatable: boolean;
}

export interface CompletedCommand {
  /** One word, or two: `fleet plan`. */
  readonly name: string;
  readonly what: string;
  readonly options: readonly CompletedOption[];
  readonly operands: {
    readonly servers: boolean;
    readonly files: boolean;
    readonly choices: readonly Offer[];
  };
}

/** The beginnings of URIs. */
export const SERVERS: readonly Offer[] = [
  ['nbd://', 'a server, by TCP'],
  ['nbds://', 'a server, by TCP with TLS'],
  ['nbd+unix:///?socket=', 'a server, by a Unix socket'],
  ['nbds+unix:///?socket=', 'a server, by a Unix socket with TLS'],
];

/** What a script offers. */
export interface Completion {
  /** What may be the first word. */
  readonly first: readonly Offer[];
  /** The first words behind which a second one names the command. */
  readonly groups: readonly string[];
  /** The commands and groups, and `help`, which takes the name of one. */
  readonly commands: readonly CompletedCommand[];
}

export function completed(specs: readonly CliCommandSpec[]): Completion {
  const commands = specs.map(commandOf);
  const groups = [...new Set(specs.flatMap(({ name }) => (name.includes(' ') ? name.split(' ', 1) : [])))];
  const named = (name: string, what: string, choices: readonly Offer[]): CompletedCommand => ({
    ...{ name, what, options: [] },
    operands: { servers: false, files: false, choices },
  });
  const grouped = groups.map((group) => {
    const below = commands.filter(({ name }) => name.startsWith(`${group} `));
    const verbs = below.map(({ name, what }): Offer => [name.slice(group.length + 1), what]);
    return named(group, verbs.map(([verb]) => verb).join(', '), verbs);
  });
  const words = [...commands.filter(({ name }) => !name.includes(' ')), ...grouped];
  const list = words.map(({ name, what }): Offer => [name, what]);
  const help = named('help', 'show the help of a command', list);
  return { first: [...list, [help.name, help.what]], groups, commands: [...commands, ...grouped, help] };
}

function commandOf(spec: CliCommandSpec): CompletedCommand {
  const { servers = true, files = false, choices = [] } = spec.operands ?? {};
  return {
    name: spec.name,
    what: spec.summary,
    options: optionsOf(spec)
      .filter(({ help }) => help !== undefined)
      .map(optionOf),
    operands: { servers, files, choices: choices.map((choice): Offer => [choice, '']) },
  };
}

function optionOf(option: OptionSpec): CompletedOption {
  const { names, short, secondShort, takes = 'nothing', value = 'VALUE', choices, help = '' } = option;
  return {
    name: names[0] ?? '',
    names,
    letters: [short, secondShort].filter((letter) => letter !== undefined),
    takes,
    placeholder: value,
    values: takes === 'nothing' ? 'none' : (choices ?? pathsOf(value)),
    what: firstSentence(help),
    isRepeatable: help.includes('repeated'),
  };
}

/** By the placeholder of the help: FILE, FILE.svg, PATH, DIR. */
function pathsOf(placeholder: string): Values {
  if (/^(FILE|PATH)\b/.test(placeholder)) return 'file';
  return /^(DIR|FOLDER)\b/.test(placeholder) ? 'folder' : 'none';
}

/** Room for a description in a list. */
const LONGEST = 70;

function firstSentence(help: string): string {
  const [first = ''] = help.split(/[.;:](?:\s|$)/, 1);
  return first.length <= LONGEST ? first : `${first.slice(0, LONGEST - 1).trimEnd()}…`;
}
