// Produces --help, --version and the lists for completion from the descriptions of the commands.

import { PACKAGE_NAME, VERSION } from '../../util/version.js';
import type { CliCommandSpec, OptionSpec } from '../command-spec.js';
import { optionsOf } from '../arguments.js';
import { descriptions } from '../registry.js';

const WIDTH = 96;

/** What the program is for. */
export const ABOUT = 'work with network block devices: info, copy, prefetch, map and more';

/** The ways to name a server. */
export const SERVER_FORMS: readonly (readonly [form: string, what: string])[] = [
  ['nbd://HOST[:PORT]/EXPORT', 'TCP; nbds:// for TLS'],
  ['nbd+unix:///EXPORT?socket=PATH', 'a Unix socket'],
  ['[ CMD ARGS ... ]', 'start a server for this command (socket activation)'],
];

/** The help of one command, in the layout of a manual page. */
export function commandHelp(spec: CliCommandSpec, program: string): string {
  const sections = [
    section('NAME', [`    ${program} - ${spec.summary}`]),
    section(
      'SYNOPSIS',
      spec.usage.flatMap((line) => usageLines(line, program)),
    ),
  ];
  if (spec.description !== undefined) sections.push(section('DESCRIPTION', joined(spec.description)));
  const listed = optionsOf(spec).filter((option) => option.help !== undefined);
  sections.push(section('OPTIONS', listed.flatMap(optionHelp)));
  sections.push(
    section(
      'EXAMPLES',
      spec.examples.flatMap(([command, what]) => [`    ${command}`, ...wrapped(what, 8)]),
    ),
  );
  return sections.join('\n');
}

/** The list of commands; with a word, of those that begin with it. */
export async function overview(group?: string): Promise<string> {
  const specs = (await descriptions()).filter(({ name }) => group === undefined || name.startsWith(`${group} `));
  const width = Math.max(...specs.map(({ name }) => name.length));
  const commands = section(
    'COMMANDS',
    specs.map(({ name, summary }) => `    ${name.padEnd(width)}  ${summary}`),
  );
  if (group !== undefined) {
    const synopsis = [`    nbd ${group} COMMAND [OPTIONS] ...`, `    nbd ${group} COMMAND --help`];
    return [section('SYNOPSIS', synopsis), commands].join('\n');
  }
  return [
    section('NAME', [`    nbd - ${ABOUT}`]),
    section('SYNOPSIS', ['    nbd COMMAND [OPTIONS] SERVER ...', '    nbd COMMAND --help']),
    commands,
    section(
      'SERVER',
      SERVER_FORMS.map(([form, what]) => `    ${form.padEnd(34)}  ${what}`),
    ),
  ].join('\n');
}

export function showVersion(program: string): string {
  return `${program} ${VERSION}\n${PACKAGE_NAME} ${VERSION}\n`;
}

export function longOptions(spec: CliCommandSpec): string {
  const names = optionsOf(spec).flatMap((option) => (option.hidden === true ? [] : option.names));
  return names.map((name) => `--${name}\n`).join('');
}

export function shortOptions(spec: CliCommandSpec): string {
  return optionsOf(spec)
    .flatMap((option) => (option.hidden === true ? [] : lettersOf(option)))
    .map((letter) => `-${letter}\n`)
    .join('');
}

/** A definition (`A := FILE | URI`) is shown without the name of the program. */
function usageLines(line: string, program: string): string[] {
  if (line === '') return [''];
  if (/ [:+]= /.test(line)) return [`    ${line}`];
  const [first = '', ...rest] = wrapped(`${program} ${line}`, 8, BETWEEN_BRACKETS);
  return [first.slice(4), ...rest];
}

/** Space that is neither within brackets nor next to a bar: `[-o N|--offset=N]` stays on one line. */
export const BETWEEN_BRACKETS = /(?<!\|) +(?!\|)(?![^[\]]*\])/;

function optionHelp(option: OptionSpec): string[] {
  const value = option.value ?? 'VALUE';
  const long = option.names.map((name) => {
    if (option.takes === 'value') return `--${name}=${value}`;
    return option.takes === 'optional' ? `--${name}[=${value}]` : `--${name}`;
  });
  const short = lettersOf(option).map((letter) => `-${letter}${option.takes === 'value' ? ` ${value}` : ''}`);
  return [...wrapped([...short, ...long].join(', '), 4), ...wrapped(option.help ?? '', 8)];
}

const lettersOf = ({ short, secondShort }: OptionSpec): string[] =>
  [short, secondShort].filter((letter) => letter !== undefined);

function section(title: string, lines: readonly string[]): string {
  return `${title}\n${lines.join('\n')}\n`;
}

function joined(paragraphs: readonly string[]): string[] {
  return paragraphs.flatMap((paragraph, at) => [...(at === 0 ? [] : ['']), ...wrapped(paragraph, 4)]);
}

function wrapped(text: string, indent: number, space = /\s+/): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(space)) {
    if (line !== '' && line.length + 1 + word.length > WIDTH - indent) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  if (line !== '') lines.push(line);
  return lines.map((each) => ' '.repeat(indent) + each);
}
