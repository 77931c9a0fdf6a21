// The commands by name, which may be two words. Each has a file of its own, which is loaded only when the command runs.

import type { CliCommand } from './command.js';
import type { CliCommandSpec } from './command-spec.js';

type Loader = () => Promise<CliCommand>;

export const CLI_COMMANDS: Readonly<Record<string, Loader>> = {
  info: async () => (await import('./commands/info.js')).info,
  list: async () => (await import('./commands/list.js')).list,
  map: async () => (await import('./commands/map.js')).map,
  cache: async () => (await import('./commands/cache.js')).cache,
  dump: async () => (await import('./commands/dump.js')).dump,
  copy: async () => (await import('./commands/copy.js')).copy,
  zero: async () => (await import('./commands/zero.js')).zero,
  discard: async () => (await import('./commands/discard.js')).discard,
  compare: async () => (await import('./commands/compare.js')).compare,
  hash: async () => (await import('./commands/hash.js')).hash,
  serve: async () => (await import('./commands/serve.js')).serve,
  bench: async () => (await import('./commands/bench.js')).bench,
  'fleet plan': async () => (await import('./commands/fleet-plan.js')).fleetPlan,
  'fleet work': async () => (await import('./commands/fleet-work.js')).fleetWork,
  'fleet watch': async () => (await import('./commands/fleet-watch.js')).fleetWatch,
  'fleet report': async () => (await import('./commands/fleet-report.js')).fleetReport,
  'fleet cancel': async () => (await import('./commands/fleet-control.js')).fleetCancel,
  'fleet retry': async () => (await import('./commands/fleet-control.js')).fleetRetry,
  'fleet pause': async () => (await import('./commands/fleet-control.js')).fleetPause,
  'fleet resume': async () => (await import('./commands/fleet-control.js')).fleetResume,
  'fleet remove': async () => (await import('./commands/fleet-control.js')).fleetRemove,
  shell: async () => (await import('./commands/shell.js')).shell,
  completion: async () => (await import('./commands/completion.js')).completion,
};

/** The descriptions of all commands, which loads them all. */
export async function descriptions(): Promise<CliCommandSpec[]> {
  const found: CliCommandSpec[] = [];
  for (const load of Object.values(CLI_COMMANDS)) found.push((await load()).spec);
  return found;
}

/** The names of libnbd's tools: invoked under one of these, the program runs that command. */
export const TOOLS: Readonly<Record<string, string>> = {
  nbdinfo: 'info',
  nbdcopy: 'copy',
  nbddump: 'dump',
  nbdzero: 'zero',
  nbddiscard: 'discard',
};

/** The words of a command line, with the command at their beginning taken off; null for a command that does not exist. */
export function findCommand(words: readonly string[]): { name: string; rest: readonly string[] } | null {
  for (const length of [2, 1]) {
    const name = words.slice(0, length).join(' ');
    if (words.length >= length && Object.hasOwn(CLI_COMMANDS, name)) return { name, rest: words.slice(length) };
  }
  return null;
}

/** The commands whose first word this is: `fleet plan` and the others for `fleet`. */
export const commandsBelow = (word: string): string[] =>
  Object.keys(CLI_COMMANDS).filter((name) => name.startsWith(`${word} `));
