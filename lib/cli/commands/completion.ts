// `nbd completion`: completion scripts for shells. They run `nbd COMMAND --long-options` when Tab is pressed, so they
// always match the installed version.

import type { CliCommand } from '../command.js';
import { UsageError } from '../errors.js';

const SCRIPTS: Readonly<Record<string, (names: string) => string>> = {
  bash: (names) => `_nbd() {
  local word=\${COMP_WORDS[COMP_CWORD]}
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "${names} help" -- "$word"))
  elif [[ $word == -* ]]; then
    COMPREPLY=($(compgen -W "$(nbd "\${COMP_WORDS[1]}" --long-options 2>/dev/null)" -- "$word"))
  else
    COMPREPLY=($(compgen -f -W 'nbd:// nbds:// nbd+unix:///?socket=' -- "$word"))
  fi
}
complete -F _nbd nbd
`,
  zsh: (names) => `#compdef nbd
_nbd() {
  if (( CURRENT == 2 )); then
    compadd -- ${names} help
  elif [[ $words[CURRENT] == -* ]]; then
    compadd -- \${(f)"$(nbd $words[2] --long-options 2>/dev/null)"}
  else
    compadd -S '' -- nbd:// nbds:// 'nbd+unix:///?socket='
    _files
  fi
}
compdef _nbd nbd
`,
  fish: (names) => `complete -c nbd -n __fish_use_subcommand -f -a '${names} help'
complete -c nbd -n 'not __fish_use_subcommand' -a '(nbd (commandline -opc)[2] --long-options 2>/dev/null)'
`,
};

export const completion: CliCommand = {
  spec: {
    name: 'completion',
    summary: 'print a completion script for bash, zsh or fish',
    usage: ['bash | zsh | fish'],
    options: [],
    examples: [
      ['source <(nbd completion bash)', 'In ~/.bashrc.'],
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
    await context.out(script(context.commands.join(' ')));
  },
};
