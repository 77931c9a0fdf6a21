// Names of commands for the server's statistics, faults and observers: those of the client's methods. Faults accept the
// protocol's `read` and `write` too.

import * as c from '../../protocol/constants.js';

/**
 * A command of the transmission phase, by the client's method; `disconnect` is NBD_CMD_DISC, `unknown` any number that
 * the protocol does not define.
 */
export type CommandName =
  'pread' | 'pwrite' | 'disconnect' | 'flush' | 'trim' | 'cache' | 'zero' | 'blockStatus' | 'unknown';

/** A command name that the fault plan accepts. */
export type NamedCommand = CommandName | 'read' | 'write';

export const NAMED_COMMANDS: readonly NamedCommand[] = [
  'pread',
  'pwrite',
  'flush',
  'trim',
  'cache',
  'zero',
  'blockStatus',
  'disconnect',
  'read',
  'write',
  'unknown',
];

const NAMES: readonly CommandName[] = ((): CommandName[] => {
  const names: CommandName[] = [];
  names[c.NBD_CMD_READ] = 'pread';
  names[c.NBD_CMD_WRITE] = 'pwrite';
  names[c.NBD_CMD_DISC] = 'disconnect';
  names[c.NBD_CMD_FLUSH] = 'flush';
  names[c.NBD_CMD_TRIM] = 'trim';
  names[c.NBD_CMD_CACHE] = 'cache';
  names[c.NBD_CMD_WRITE_ZEROES] = 'zero';
  names[c.NBD_CMD_BLOCK_STATUS] = 'blockStatus';
  return names;
})();

export const commandNameOf = (type: number): CommandName => NAMES[type] ?? 'unknown';
