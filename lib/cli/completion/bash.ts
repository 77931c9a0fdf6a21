// The completion script for bash 3.2 and later, without the package bash-completion.

import {
  type CompletedCommand,
  type CompletedOption,
  type Completion,
  type Offer,
  SERVERS,
  type Values,
} from './model.js';

export function bashScript({ first, groups, commands }: Completion): string {
  return `# bash completion for nbd
_nbd_offer() { # prefix of the word that stays; lines "word<TAB>what it means" on standard input
  local line word what all=() longest=0 width
  while IFS= read -r line; do
    word=\${line%%$'\\t'*}
    [[ -n $word && $word == "$cur"* ]] || continue
    all+=("$line")
    (( \${#word} > longest )) && longest=\${#word}
  done
  width=$(( \${COLUMNS:-80} - longest - 6 ))
  for line in "\${all[@]}"; do
    word=\${line%%$'\\t'*}
    what=\${line#*$'\\t'}
    word=\${word#"$strip"}
    [[ $word == *[=/?] ]] && compopt -o nospace 2>/dev/null
    # Where a list is shown, it has what the words mean; the only word is inserted as it is.
    if [[ $line == *$'\\t'* && -n $what && \${#all[@]} -gt 1 && \${COMP_TYPE:-9} != 37 && $width -gt 10 ]]; then
      (( \${#what} > width )) && what="\${what:0:width-1}…"
      printf -v word '%-*s  (%s)' "$(( longest - \${#strip} ))" "$word" "$what"
    fi
    COMPREPLY+=("$word")
  done
}
_nbd_paths() { # -f or -d; what stays in front of the path
  local path
  compopt -o filenames 2>/dev/null
  while IFS= read -r path; do
    path=$2$path
    COMPREPLY+=("\${path#"$strip"}")
  done < <(compgen "$1" -- "\${cur#"$2"}")
}
_nbd_values() { # command and option; what stays in front of the value
  case $1 in
${valueCases(commands)}
    *) return 1 ;;
  esac
}
_nbd() {
  local line=\${COMP_LINE:0:COMP_POINT} words=() cur strip='' word n=-1 i rest
  COMPREPLY=()
  # Bash splits words at = and :, which options and URIs contain.
  for (( i = 0; i <= COMP_CWORD; i++ )); do
    rest=\${line#"\${line%%[![:space:]]*}"}
    word=\${COMP_WORDS[i]}
    (( i == COMP_CWORD )) && word=$rest
    if (( n < 0 )) || [[ $rest != "$line" ]]; then
      (( ++n ))
      words[n]=''
    fi
    words[n]+=$word
    line=\${rest#"$word"}
  done
  cur=\${words[n]}
  case $COMP_WORDBREAKS in
    *=*:* | *:*=*) strip=\${cur%"\${cur##*[=:]}"} ;;
    *=*) strip=\${cur%"\${cur##*=}"} ;;
    *:*) strip=\${cur%"\${cur##*:}"} ;;
  esac
  if (( n <= 1 )); then
    _nbd_offer <<'END'
${offers([...first, ['--help', 'show the commands'], ['--version', 'show the version']])}
END
    return
  fi
  local command=\${words[1]} open='' ended=''
  if (( n > 2 )); then
    case $command in ${groups.join(' | ')}) command+=" \${words[2]}" ;; esac
  fi
  for (( i = 2; i < n; i++ )); do
    case \${words[i]} in
      '[') open=$i ;;
      ']') open='' ;;
      --) ended=1 ;;
    esac
  done
  # Within [ CMD ARGS ... ] is another program.
  if [[ -n $open ]]; then
    if (( n == open + 1 )); then COMPREPLY=($(compgen -c -- "$cur")); else _nbd_paths -f ''; fi
    return
  fi
  if [[ -z $ended ]]; then
    if [[ $cur == --*=* ]]; then
      _nbd_values "$command \${cur%%=*}" "\${cur%%=*}="
      return
    fi
    if [[ \${words[n-1]} == -* ]] && _nbd_values "$command \${words[n-1]} " ''; then return; fi
    if [[ $cur == -* ]]; then
      case $command in
${commands.map(optionCase).join('\n')}
      esac
      return
    fi
  fi
  if [[ $cur == nbd*+unix://*socket=* ]]; then
    _nbd_paths -f "\${cur%%socket=*}socket="
    return
  fi
  case $command in
${commands.map(operandCase).join('\n')}
  esac
}
complete -F _nbd nbd
`;
}

/** Text in single quotes. */
const offers = (list: readonly Offer[]): string => list.map(([word, what]) => `${word}\t${what}`).join('\n');

const hereDocument = (list: readonly Offer[]): string => `_nbd_offer <<'END'\n${offers(list)}\nEND\n`;

/** Patterns with a space at the end are those of a value that is the next word. */
function valueCases(commands: readonly CompletedCommand[]): string {
  const groups = new Map<string, string[]>();
  for (const { name, options } of commands) {
    for (const option of options.filter(({ takes }) => takes !== 'nothing')) {
      const body = valueBody(option.values);
      groups.set(body, [...(groups.get(body) ?? []), ...spellings(option).map((each) => `'${name} ${each}'`)]);
    }
  }
  return [...groups].map(([body, patterns]) => `    ${patterns.join(' | ')})\n${body}      ;;`).join('\n');
}

function spellings({ names, letters, takes }: CompletedOption): string[] {
  const long = names.map((name) => `--${name}`);
  return takes === 'value'
    ? [...long, ...[...long, ...letters.map((letter) => `-${letter}`)].map((each) => `${each} `)]
    : long;
}

function valueBody(values: Values): string {
  if (values === 'none') return '      :\n';
  if (values === 'file') return '      _nbd_paths -f "$2"\n';
  if (values === 'folder') return '      _nbd_paths -d "$2"\n';
  return `      _nbd_offer <<END\n${values.map((value) => `$2${value}`).join('\n')}\nEND\n`;
}

function optionCase({ name, options }: CompletedCommand): string {
  const list = options.map((option): Offer => {
    const suffix = option.takes === 'value' ? '=' : '';
    return [`--${option.name}${suffix}`, option.what];
  });
  return `        '${name}')\n${hereDocument(list)}          ;;`;
}

function operandCase({ name, operands }: CompletedCommand): string {
  const { servers, files, choices } = operands;
  const list = [...(servers ? [...SERVERS, ['[', 'a server that is started for this command'] as const] : [])];
  const offered = [...choices, ...list];
  return `    '${name}')\n${offered.length === 0 ? '' : hereDocument(offered)}${files ? "      _nbd_paths -f ''\n" : ''}      ;;`;
}
