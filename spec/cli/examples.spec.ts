// The examples in --help and in the README are command lines that the commands take.

import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parse } from '../../lib/cli/arguments.js';
import { CLI_COMMANDS } from '../../lib/cli/registry.js';

const README = readFileSync(join(resolve(import.meta.dirname, '../..'), 'README.md'), 'utf8');

/** The words of `nbd NAME` in a shell command; quotes keep words together, and the shell's own words end it. */
function wordsOf(command: string, name: string): string[] {
  const from = command.slice(command.search(new RegExp(`\\bnbd ${name}\\b`)));
  const words = [...from.matchAll(/'([^']*)'|"([^"]*)"|(\S+)/g)].map(
    ([, one, two, plain]) => one ?? two ?? plain ?? '',
  );
  const end = words.findIndex((word) => /^([|>&]|&&|\d?>)/.test(word));
  return (end === -1 ? words : words.slice(0, end)).map((word) => word.replace(/\)$/, ''));
}

/** The words behind `nbd NAME`, where the command must begin with it. */
function wordsBehind(command: string, name: string): string[] {
  const [program, ...words] = wordsOf(command, name);
  const length = name.split(' ').length;
  expect([command, program, words.slice(0, length).join(' ')]).toEqual([command, 'nbd', name]);
  return words.slice(length);
}

describe.each(Object.entries(CLI_COMMANDS))('nbd %s', (name, load) => {
  it('has examples in --help that it takes', async () => {
    const { spec } = await load();
    expect(spec.examples.length).toBeGreaterThan(0);
    for (const [command] of spec.examples) {
      parse(spec, wordsBehind(command, name));
    }
  });

  it('has one example in the README that it takes', async () => {
    const { spec } = await load();
    const rows = README.split('\n').filter(
      (line) => line.startsWith(`| \`${name}\` `) && / nbd |`nbd |\(nbd /.test(line),
    );
    expect(rows).toHaveLength(1);
    const example = rows[0]?.split('|').at(-2)?.trim().replace(/^`|`$/g, '') ?? '';
    const { options, operands } = parse(spec, wordsBehind(example, name));
    expect([example, options.length + operands.length > 0]).toEqual([example, true]);
  });
});
