// The completion script for zsh.

import { type CompletedCommand, type CompletedOption, type Completion, type Offer, SERVERS } from './model.js';

export function zshScript({ first, groups, commands }: Completion): string {
  const list = first.map((offer) => `    ${offered(offer)}`);
  return `#compdef nbd
# zsh completion for nbd

_nbd_servers() {
  if compset -P '*socket='; then
    _files
    return
  fi
  local -a servers
  servers=(
${SERVERS.map((server) => `    ${offered(server)}`).join('\n')}
  )
  _describe -t servers server servers -S ''
  compadd -Q -X 'a server that is started for this command' -- '['
}

# Within [ CMD ARGS ... ] is another program.
_nbd_program() {
  local i open=0
  for (( i = 2; i < CURRENT; i++ )); do
    case $words[i] in
      '[') open=$i ;;
      ']') open=0 ;;
    esac
  done
  (( open > 0 )) || return 1
  if (( CURRENT == open + 1 )); then compadd -k commands; else _files; fi
  return 0
}

_nbd() {
  local curcontext=$curcontext ret=1
  local -a state line offered
  if (( CURRENT > 2 )) && _nbd_program; then return; fi
  if (( CURRENT == 2 )); then
    offered=(
${list.join('\n')}
    )
    _describe -t commands command offered
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  if [[ $command == (${groups.join('|')}) ]] && (( CURRENT > 2 )); then
    command+=" $words[2]"
    shift words
    (( CURRENT-- ))
  fi
  case $command in
${commands.map(commandCase).join('\n')}
  esac
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _nbd "$@"; else compdef _nbd nbd; fi
`;
}

const quoted = (text: string): string => `'${text.replaceAll("'", String.raw`'\''`)}'`;

const offered = ([word, what]: Offer): string => quoted(what === '' ? described(word) : `${described(word)}:${what}`);

/** A word in front of a colon. */
const described = (word: string): string => word.replaceAll(':', String.raw`\:`);

function commandCase({ name, options, operands }: CompletedCommand): string {
  const specs = options.flatMap(argumentSpecs);
  const { servers, files, choices } = operands;
  const actions = [
    ...(choices.length > 0
      ? [`local -a choices=(${choices.map(offered).join(' ')}); _describe -t choices choice choices`]
      : []),
    ...(servers ? ['_nbd_servers'] : []),
    ...(files ? ['_files'] : []),
  ];
  const operand = actions.length === 0 ? [] : [quoted(`*: :{${actions.join('; ')}}`)];
  return `    '${name}')\n      _arguments -s -S \\\n${[...specs, ...operand].map((spec) => `        ${spec}`).join(' \\\n')}\n      ;;`;
}

/** `--name=` takes its value behind `=` or as the next word, `--name=-` only behind `=`. */
function argumentSpecs(option: CompletedOption): string[] {
  const { name, letters, takes, isRepeatable } = option;
  const what = `[${option.what.replace(/[[\]\\]/g, '\\$&')}]`;
  const all = [`--${name}`, ...letters.map((letter) => `-${letter}`)];
  const excluded = isRepeatable ? '*' : `(${all.join(' ')})`;
  const message = option.placeholder.replace(/[[\]\\:]/g, '\\$&');
  const action = actionOf(option);
  const long =
    takes === 'nothing'
      ? [`--${name}${what}`]
      : [`--${name}=${takes === 'optional' ? '-' : ''}${what}${takes === 'optional' ? '::' : ':'}${message}:${action}`];
  const short = letters.map((letter) =>
    takes === 'value' ? `-${letter}+${what}:${message}:${action}` : `-${letter}${what}`,
  );
  return [...long, ...short].map((each) => quoted(`${excluded}${each}`));
}

function actionOf({ values }: CompletedOption): string {
  if (values === 'none') return ' ';
  if (values === 'file') return '_files';
  return values === 'folder' ? '_files -/' : `(${values.map((value) => described(value)).join(' ')})`;
}
