// The completion script for fish.

import { type CompletedCommand, type CompletedOption, type Completion, SERVERS } from './model.js';

export function fishScript({ first, groups, commands }: Completion): string {
  return `# fish completion for nbd
function __nbd_is
    set -l words (commandline -opc)
    set -l last (math 1 + (count $argv))
    set -q words[$last]; and test "$words[2..$last]" = "$argv"; and not __nbd_in_program
end

function __nbd_needs_verb
    test (count (commandline -opc)) -eq 2; and __nbd_is $argv
end

# Within [ CMD ARGS ... ] is another program.
function __nbd_in_program
    set -l open 1
    for word in (commandline -opc)
        test $word = '['; and set open 0
        test $word = ']'; and set open 1
    end
    return $open
end

function __nbd_begins_program
    test (commandline -opc)[-1] = '['
end

function __nbd_needs_command
    test (count (commandline -opc)) -eq 1
end

function __nbd_servers
    set -l word (commandline -ct)
    if string match -q '*socket=*' -- $word
        set -l start (string replace -r 'socket=.*' 'socket=' -- $word)
        for path in (__fish_complete_path (string replace -r '.*socket=' '' -- $word))
            printf '%s%s\\n' $start $path
        end
    else
        printf '%s\\t%s\\n' ${SERVERS.flatMap(([word, what]) => [quoted(word), quoted(what)]).join(' ')} '[' 'a server that is started for this command'
    end
end

complete -c nbd -f
complete -c nbd -n __nbd_in_program -F
complete -c nbd -n __nbd_begins_program -a '(__fish_complete_command)'
complete -c nbd -n __nbd_needs_command -l help -d 'show the commands'
complete -c nbd -n __nbd_needs_command -l version -d 'show the version'
${first.map(([name, what]) => `complete -c nbd -n __nbd_needs_command -a ${name} -d ${quoted(what)}`).join('\n')}
${commands.flatMap((command) => linesOf(command, groups.includes(command.name))).join('\n')}
`;
}

const quoted = (text: string): string => `'${text.replace(/['\\]/g, '\\$&')}'`;

function linesOf({ name, options, operands }: CompletedCommand, isGroup: boolean): string[] {
  const begin = `complete -c nbd -n '${isGroup ? '__nbd_needs_verb' : '__nbd_is'} ${name}'`;
  const { servers, files, choices } = operands;
  return [
    ...choices.map(([choice, what]) => `${begin} -a ${choice}${what === '' ? '' : ` -d ${quoted(what)}`}`),
    ...(servers ? [`${begin} -a '(__nbd_servers)'`] : []),
    ...(files ? [`${begin} -F`] : []),
    ...options.map((option) => `${begin}${optionLine(option)}`),
  ];
}

function optionLine({ name, letters, takes, values, what }: CompletedOption): string {
  const short = takes === 'optional' ? [] : letters;
  const names = ` -l ${name}${short.map((letter) => ` -s ${letter}`).join('')} -d ${quoted(what)}`;
  if (takes === 'nothing') return names;
  const required = takes === 'value' ? ' -r' : '';
  if (values === 'file') return `${names}${required} -F`;
  if (values === 'none') return `${names}${required} -f`;
  const offered = values === 'folder' ? '(__fish_complete_directories)' : values.join(' ');
  return `${names}${required} -f -a ${quoted(offered)}`;
}
