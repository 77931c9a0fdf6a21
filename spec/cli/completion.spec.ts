// The completion scripts in the shells themselves: what Tab offers behind a line, and that it starts no program.

import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { optionsOf } from '../../lib/cli/arguments.js';
import { descriptions } from '../../lib/cli/registry.js';
import { describeWith, runTool } from '../support/tools.js';
import { out } from './support.js';

/** Sources $1, and prints what is offered behind each of the lines that follow. Words are split as readline does. */
const BASH = String.raw`
source "$1"
for line in "${'${@:2}'}"; do
  COMP_LINE=$line COMP_POINT=${'${#line}'} COMP_TYPE=9 COMP_WORDS=() COMPREPLY=()
  rest=$line
  while [[ -n $rest ]]; do
    rest=${'${rest#"${rest%%[! ]*}"}'}
    [[ $rest =~ ^([=:]+|[^=:\ ]+) ]] || break
    COMP_WORDS+=("${'${BASH_REMATCH[1]}'}")
    rest=${'${rest#"${BASH_REMATCH[1]}"}'}
  done
  [[ $line == *' ' ]] && COMP_WORDS+=('')
  COMP_CWORD=$(( ${'${#COMP_WORDS[@]}'} - 1 ))
  _nbd
  echo "== $line"
  printf '%s\n' "${'${COMPREPLY[@]}'}"
done
`;

const FISH = `
source $argv[1]
for line in $argv[2..]
  echo "== $line"
  complete -C "$line"
end
`;

/** What the zsh that is tried runs first: its settings, and Tab. */
const ZSH_SETTINGS = String.raw`
PS1='> '
autoload -Uz compinit
compinit -u -D
LISTMAX=1000
stty cols 150 -echo
source $1
tab () {
  zle complete-word
  zle -R
  print -rn -- "<shown>" > $TTY
}
zle -N tab
bindkey "^I" tab
`;

/** Types each line and Tab into an interactive zsh on a pseudo terminal, and prints what it shows. */
const ZSH = String.raw`
zmodload zsh/zpty
zpty z "TERM=dumb zsh -f -i"
zpty -w z ". $2 $1; print READY"
zpty -r z shown $'*\nREADY*2004h'
for line in "${'${@[3,-1]}'}"; do
  zpty -w -n z "$line"$'\t'
  # What is typed before the editor is ready, which "2004h" marks, is lost. A list is not shown if more is typed meanwhile. ^U clears the line.
  zpty -r z shown '*<shown>'
  zpty -w -n z $'\x15print END\n'
  zpty -r z rest $'*\nEND*2004h'
  print -r -- "== $line"
  print -r -- "$shown"
done
zpty -d z
`;

/** What must be offered behind a line, and what must not. */
const CASES: [line: string, offered: RegExp[], not?: RegExp][] = [
  ['nbd co', [/copy\s+.*copy to and from NBD servers/, /compare/, /completion/], /\binfo\b/],
  ['nbd info --', [/--can\b/, /--partitions\b.*[Ss]how the partition table/, /--verbose/, /--wait/], /--blkhash/],
  ['nbd info --can=', [/\bread-only\b/, /\bmulti-conn\b/], /a\.img/],
  ['nbd info --can r', [/\bread\b/, /\bread-only\b/], /multi-conn/],
  ['nbd map --context base:', [/allocation/]],
  ['nbd hash -a sha', [/sha256/, /sha512/], /blake/],
  ['nbd hash --algorithm=sha', [/sha256/, /sha512/], /blake/],
  ['nbd copy --checkpoint=a', [/a\.img/, /ab\.img/], /folder/],
  ['nbd copy --checkpoint a', [/a\.img/, /ab\.img/], /folder/],
  ['nbd copy nbd://host a', [/a\.img/, /ab\.img/]],
  ['nbd serve a', [/a\.img/, /ab\.img/], /nbd:\/\//],
  ['nbd serve --tls-certificates fo', [/folder/], /a\.img/],
  ['nbd info nbd+', [/nbd\+unix/]],
  ['nbd dump nbd+unix:///?socket=a', [/a\.img/, /ab\.img/]],
  ['nbd zero --offset ', [], /a\.img|nbd:/],
  ['nbd completion ', [/bash/, /zsh/, /fish/], /a\.img|nbd:/],
  ['nbd help comp', [/compare/, /completion/], /\bcopy\b/],
  ['nbd fl', [/fleet/]],
  ['nbd fleet ', [/plan/, /watch/, /work\b/, /report/], /copy|nbd:/],
  ['nbd fleet re', [/report/, /retry/, /resume/], /plan/],
  ['nbd fleet work --', [/--concurrency/, /--until-settled/, /--redis/], /--kind/],
  ['nbd fleet plan --kind ', [/prefetch/, /backup/], /a\.img|nbd:/],
  ['nbd fleet plan a', [/a\.img/, /ab\.img/], /nbd:/],
  ['nbd help fl', [/fleet/]],
  ['nbd info [ not-a-real-pro', [/not-a-real-program/]],
  ['nbd info [ nbdkit file a', [/a\.img/, /ab\.img/]],
];

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-completion-spec-'));
  await mkdir(join(folder, 'folder'));
  await mkdir(join(folder, 'bin'));
  for (const name of ['a.img', 'ab.img']) await writeFile(join(folder, name), '');
  for (const name of ['not-a-real-program', 'nbd']) {
    // A completion that starts nbd leaves a trace.
    await writeFile(join(folder, 'bin', name), `#!/bin/sh\ntouch '${join(folder, 'started')}'\n`);
    await chmod(join(folder, 'bin', name), 0o755);
  }
});
afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

describe.each([
  ['bash', BASH, ['--norc', '--noprofile']],
  ['fish', FISH, ['--no-config']],
  ['zsh', ZSH, ['-f']],
])('nbd completion %s', (shell, harness, flags) => {
  describeWith([shell], `in ${shell}`, () => {
    it('offers commands, options, values, files and servers, and starts nothing', async () => {
      const script = join(folder, `script.${shell}`);
      await writeFile(script, await out(['completion', shell]));
      const driver = join(folder, `driver.${shell}`);
      await writeFile(driver, harness);
      const lines = CASES.map(([line]) => line);
      const settings = join(folder, 'settings.zsh');
      await writeFile(settings, ZSH_SETTINGS);
      const given = [...flags, driver, script, ...(shell === 'zsh' ? [settings] : []), ...lines];
      const { stdout, stderr } = await runTool(shell, given, {
        cwd: folder,
        env: {
          HOME: folder,
          PATH: `${join(folder, 'bin')}${delimiter}${process.env['PATH'] ?? ''}`,
          LC_ALL: 'C.UTF-8',
        },
      });
      expect(stderr).toBe('');
      const shown = new Map(
        stdout.split(/^== /m).map((part) => [part.slice(0, part.indexOf('\n')), part.slice(part.indexOf('\n') + 1)]),
      );
      for (const [line, offered, not = /(?!)/] of CASES) {
        const text = (shown.get(line) ?? '').replaceAll('\r', '');
        for (const each of offered) {
          // A zsh shows the line too, with what it has inserted.
          expect(line).not.toMatch(each);
          expect({ line, text }).toEqual({ line, text: expect.stringMatching(each) as unknown });
        }
        const others = text.replaceAll(line, '');
        expect({ line, others }).toEqual({ line, others: expect.not.stringMatching(not) as unknown });
      }
      expect((await runTool('ls', [folder])).stdout).not.toContain('started');
    });
  });
});

it('nbd completion contains every option of every command', async () => {
  const specs = await descriptions();
  const [missing, found]: [string[], string[]] = [[], []];
  for (const [shell, shown] of [
    ['bash', (name: string) => new RegExp(`^--${name}=?\t`, 'm')],
    ['fish', (name: string) => new RegExp(` -l ${name} `)],
    ['zsh', (name: string) => new RegExp(`--${name}(=-?)?\\[`)],
  ] as const) {
    const script = await out(['completion', shell]);
    for (const spec of specs) {
      const begin = shell === 'fish' ? `__nbd_is ${spec.name}'` : `    '${spec.name}')`;
      expect(script).toContain(begin);
      for (const { names, help } of optionsOf(spec)) {
        if (help === undefined) continue;
        // Of an option with several names the first is offered.
        const [name = ''] = names;
        (shown(name).test(script) ? found : missing).push(`${shell}: nbd ${spec.name} --${name}`);
      }
    }
  }
  expect(missing).toEqual([]);
  expect(found.length).toBeGreaterThan(3 * specs.length);
});
