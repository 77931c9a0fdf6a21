// The commands by name. Each has a file of its own, which is loaded only when the command runs.

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
