// Manual pages, made from the descriptions of the commands: nbd(1), and one page for each command. Written with the
// macros of man(7), which groff and mandoc know. Nothing here is loaded when a command runs.

import { PACKAGE_NAME, VERSION } from '../../util/version.js';
import { optionsOf } from '../arguments.js';
import type { CliCommandSpec, OptionSpec } from '../command-spec.js';
import { ABOUT, BETWEEN_BRACKETS, SERVER_FORMS } from './help.js';

/** A file below a folder of manual pages. */
export interface ManPage {
  readonly name: string;
  readonly text: string;
}

const EXIT_CODES: readonly (readonly [string, string])[] = [
  ['0', 'Success.'],
  ['1', 'An error, which is described on standard error.'],
  ['2', 'The answer is no: --can and --is, --check, compare.'],
  ['129, 130, 143', 'Ended by SIGHUP, by Ctrl-C, by SIGTERM.'],
  ['141', 'The reader of the output has gone.'],
];

/** `nbd-fleet-plan` for the command `fleet plan`. */
const pageOf = (name: string): string => `nbd-${name.replaceAll(' ', '-')}`;

/** The pages of all commands. `date` is that of the pages. */
export function manPages(specs: readonly CliCommandSpec[], date: Date): ManPage[] {
  return [overviewPage(specs, date), ...specs.map((spec) => commandPage(spec, date))];
}

function overviewPage(specs: readonly CliCommandSpec[], date: Date): ManPage {
  return page('nbd', date, [
    section('NAME', [`nbd \\- ${escape(ABOUT)}`]),
    section('SYNOPSIS', [
      '.B nbd',
      '.I COMMAND',
      `[\\fIOPTIONS\\fR] \\fISERVER\\fR ...`,
      '.PP',
      '.B nbd',
      '.I COMMAND',
      '.B \\-\\-help',
    ]),
    section('DESCRIPTION', [
      sentence(
        'Works with exports of NBD (Network Block Device) servers, without a kernel device. Each command has a page of ' +
          'its own.',
      ),
    ]),
    section(
      'COMMANDS',
      specs.flatMap(({ name, summary }) => ['.TP', `.BR ${escape(pageOf(name))} (1)`, sentence(summary)]),
    ),
    section(
      'SERVER',
      SERVER_FORMS.flatMap(([form, what]) => ['.TP', emphasised(form), sentence(what)]),
    ),
    section('OPTIONS', [
      ...['.TP', '.BR \\-V ", " \\-\\-version', 'Show the version and exit.'],
      ...['.TP', '.BR \\-h ", " \\-\\-help', 'Show the commands and exit.'],
    ]),
    section(
      'EXIT STATUS',
      EXIT_CODES.flatMap(([code, what]) => ['.TP', `.B ${code}`, sentence(what)]),
    ),
    seeAlso(specs.map(({ name }) => pageOf(name))),
  ]);
}

function commandPage(spec: CliCommandSpec, date: Date): ManPage {
  const { name, tool, summary, usage, description = [], examples } = spec;
  const listed = optionsOf(spec).filter(({ help }) => help !== undefined);
  return page(pageOf(name), date, [
    section('NAME', [`${escape(pageOf(name))} \\- ${escape(summary)}`]),
    section('SYNOPSIS', synopsis(usage, name)),
    ...(description.length === 0 ? [] : [section('DESCRIPTION', paragraphs(description.map(sentence)))]),
    section(
      'OPTIONS',
      listed.flatMap((option) => ['.TP', formsOf(option), sentence(option.help ?? '')]),
    ),
    section(
      'EXAMPLES',
      examples.flatMap(([command, what]) => ['.PP', sentence(what), '.PP', '.EX', `    ${literal(command)}`, '.EE']),
    ),
    seeAlso(['nbd', ...(tool === undefined ? [] : [tool])]),
  ]);
}

function page(name: string, date: Date, sections: readonly string[]): ManPage {
  const [title, source] = [name.toUpperCase(), `${PACKAGE_NAME} ${VERSION}`].map(escape);
  const head = `.TH ${title} 1 ${date.toISOString().slice(0, 10)} "${source}" "NBD commands"`;
  // Lines are not justified, and options are not hyphenated.
  return { name: `${name}.1`, text: `${head}\n.ad l\n.nh\n${sections.join('')}` };
}

const section = (title: string, lines: readonly string[]): string => {
  // A paragraph macro behind a heading has no effect, which mandoc reports.
  const [first, ...rest] = lines;
  return `.SH ${title}\n${[...(first === '.PP' ? [] : [first]), ...rest].join('\n')}\n`;
};

const paragraphs = (texts: readonly string[]): string[] =>
  texts.flatMap((text, at) => (at === 0 ? [text] : ['.PP', text]));

const seeAlso = (pages: readonly string[]): string =>
  section(
    'SEE ALSO',
    pages.map((name, at) => `.BR ${escape(name)} (1)${at < pages.length - 1 ? ' ,' : ''}`.replace('(1) ,', '(1),')),
  );

/** A definition (`A := FILE | URI`) is a line without the name of the program. */
function synopsis(usage: readonly string[], name: string): string[] {
  const lines = usage
    .filter((line) => line !== '')
    .map((line) => (/ [:+]= /.test(line) ? emphasised(line) : `\\fBnbd ${escape(name)}\\fR ${unbroken(line)}`));
  return paragraphs(lines);
}

/** An option and its value, or what is in brackets, stays on one line. */
const unbroken = (line: string): string =>
  line
    .split(BETWEEN_BRACKETS)
    .map((word) => emphasised(word).replaceAll(' ', '\\ '))
    .join(' ');

function formsOf(option: OptionSpec): string {
  const { names, short, secondShort, takes, value = 'VALUE' } = option;
  const letters = [short, secondShort].filter((letter) => letter !== undefined);
  const shown = emphasised(value);
  return [
    ...letters.map((letter) => `\\fB\\-${letter}\\fR${takes === 'value' ? ` ${shown}` : ''}`),
    ...names.map((name) => {
      const behind = takes === 'value' ? `=${shown}` : takes === 'optional' ? `[=${shown}]` : '';
      return `\\fB\\-\\-${escape(name)}\\fR${behind}`;
    }),
  ].join(', ');
}

/** Text with its special characters; every hyphen is a minus, which can be copied into a shell. */
const escape = (text: string): string =>
  text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll('"', '\\(dq')
    .replace(/[^\n -~]/gu, (char) => `\\[u${(char.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0')}]`);

/** A line of a shell: its quotes stay what they are. */
const literal = (text: string): string =>
  escape(text).replaceAll("'", '\\(aq').replaceAll('`', '\\(ga').replaceAll('^', '\\(ha').replaceAll('~', '\\(ti');

/** Options in bold, placeholders in italics. */
const emphasised = (text: string): string =>
  escape(text)
    .replace(/(^|[^\w\\])((?:\\-){1,2}\w(?:\w|\\-(?=\w))*)/g, '$1\\fB$2\\fR')
    .replace(/(^|[^\w\\])([A-Z](?:[A-Z]|\\-(?=[A-Z]))*)(?!\w)/g, '$1\\fI$2\\fR');

/** A paragraph as one line: a line that begins with a dot or a quote would be a macro. */
function sentence(text: string): string {
  const bold = escape(text).replace(/(^|[^\w\\])((?:\\-){2}\w(?:\w|\\-(?=\w))*)/g, '$1\\fB$2\\fR');
  return /^[.']/.test(bold) ? `\\&${bold}` : bold;
}
