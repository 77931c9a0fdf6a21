// `nbd completion`: completion scripts for shells, made from the descriptions of all commands. They contain what they
// offer, so that Tab starts no program.

import type { CliCommand } from '../command.js';
import { UsageError } from '../errors.js';
import { bashScript } from '../completion/bash.js';
import { fishScript } from '../completion/fish.js';
import { completed, type Completion } from '../completion/model.js';
import { zshScript } from '../completion/zsh.js';

const SCRIPTS: Readonly<Record<string, (completion: Completion) => string>> = {
  bash: bashScript,
  zsh: zshScript,
  fish: fishScript,
};

export const completion: CliCommand = {
  spec: {
    name: 'completion',
    summary: 'print a completion script for bash, zsh or fish',
    usage: ['bash | zsh | fish'],
    description: [
      'The script contains the commands, options and values of this version. Nothing is started when Tab is pressed, so ' +
        'the script is to be printed again after an update.',
    ],
    operands: { servers: false, choices: Object.keys(SCRIPTS) },
    options: [],
    examples: [
      ['nbd completion bash > ~/.local/share/bash-completion/completions/nbd', 'For bash with bash-completion.'],
      ['source <(nbd completion bash)', 'In ~/.bashrc, without it.'],
      ['nbd completion zsh > ~/.zfunc/_nbd', 'For zsh, with fpath+=~/.zfunc in front of compinit in ~/.zshrc.'],
      ['nbd completion fish > ~/.config/fish/completions/nbd.fish', 'For fish.'],
    ],
  },
  async run(args, context) {
    const [operand] = args.operands;
    const shell = operand !== undefined && 'word' in operand ? operand.word : '';
    const script = Object.hasOwn(SCRIPTS, shell) ? SCRIPTS[shell] : undefined;
    if (script === undefined || args.operands.length > 1) {
      throw new UsageError('expected the name of a shell: bash, zsh or fish');
    }
    await context.out(script(completed(await context.descriptions())));
  },
};
