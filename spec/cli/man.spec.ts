// The manual pages: what groff and mandoc think of them, and that they contain every option of every command.

import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { optionsOf } from '../../lib/cli/arguments.js';
import type { CliCommandSpec } from '../../lib/cli/command-spec.js';
import { manPages } from '../../lib/cli/manual/man-page.js';
import { descriptions } from '../../lib/cli/registry.js';
import { describeWith, runTool } from '../support/tools.js';

/** `nbd-fleet-plan` of `fleet plan`. */
const pageOf = (name: string): string => `nbd-${name.replaceAll(' ', '-')}`;

let folder: string;
let specs: readonly CliCommandSpec[];
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-man-spec-'));
  specs = await descriptions();
  for (const { name, text } of manPages(specs, new Date(0))) await writeFile(join(folder, name), text);
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

it('package.json lists a page for nbd and for every command, below dist/', async () => {
  const { man } = JSON.parse(await readFile(join(import.meta.dirname, '../../package.json'), 'utf8')) as {
    man: string[];
  };
  // `npm run man` writes the list.
  expect(man).toEqual(['nbd', ...specs.map(({ name }) => pageOf(name))].map((name) => `./dist/man/${name}.1`));
});

describeWith(['man', 'mandoc'], 'the manual pages', () => {
  const rendered = async (name: string): Promise<string> =>
    (await runTool('man', ['-l', `${name}.1`], { cwd: folder, env: { MANWIDTH: '90', LC_ALL: 'C.UTF-8' } })).stdout;

  it('are correct to groff and to mandoc', async () => {
    const names = ['nbd', ...specs.map(({ name }) => pageOf(name))];
    const found = await Promise.all(
      names.map(async (name) => {
        const path = join(folder, `${name}.1`);
        const groff = await runTool('man', ['-l', '--warnings', path], { env: { LC_ALL: 'C.UTF-8' } });
        const mandoc = await runTool('mandoc', ['-T', 'lint', '-W', 'warning', path]);
        return `${groff.stderr}${mandoc.stdout}${mandoc.stderr}`;
      }),
    );
    expect(found.filter((text) => text !== '')).toEqual([]);
    await writeFile(join(folder, 'bad.1'), '.TH x 1\n.SH NAME\n.NOSUCH\n');
    expect((await runTool('mandoc', ['-T', 'lint', join(folder, 'bad.1')])).stdout).toMatch(/NOSUCH/);
  });

  it('have every option, with its letters, its value and all words of its help', async () => {
    for (const spec of specs) {
      const page = await rendered(pageOf(spec.name));
      const lines = page.split('\n').map((line) => line.trim());
      const words = page.replace(/\s+/g, ' ');
      expect(words).toContain(`${pageOf(spec.name)} - ${spec.summary}`);
      for (const { names, short, secondShort, takes, value = 'VALUE', help } of optionsOf(spec)) {
        if (help === undefined) continue;
        const forms = [
          ...[short, secondShort].flatMap((letter) =>
            letter === undefined ? [] : [`-${letter}${takes === 'value' ? ` ${value}` : ''}`],
          ),
          ...names.map(
            (name) => `--${name}${takes === 'value' ? `=${value}` : takes === 'optional' ? `[=${value}]` : ''}`,
          ),
        ];
        // A long list of names is wrapped.
        expect([spec.name, words]).toEqual([spec.name, expect.stringContaining(forms.join(', '))]);
        expect(lines.some((line) => line.startsWith(forms[0] ?? ''))).toBe(true);
        expect([spec.name, words]).toEqual([spec.name, expect.stringContaining(help.replace(/\s+/g, ' '))]);
      }
      for (const [command] of spec.examples) expect(words).toContain(command.replace(/\s+/g, ' '));
    }
    const overview = await rendered('nbd');
    for (const { name } of specs) expect(overview).toContain(`${pageOf(name)}(1)`);
  });
});
