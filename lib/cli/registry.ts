// The commands by name. Each is a file of its own and loaded only when it is asked for.

import type { CliCommand } from './command.js';

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

/** libnbd's names: under these the program is the command itself. */
export const TOOLS: Readonly<Record<string, string>> = {
  nbdinfo: 'info',
  nbdcopy: 'copy',
  nbddump: 'dump',
  nbdzero: 'zero',
  nbddiscard: 'discard',
};
