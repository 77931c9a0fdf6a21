// `nbd zero`: nbdzero, zeroes over all or a part of an export.

import { CMD_FLAG_FAST_ZERO, CMD_FLAG_FUA, CMD_FLAG_NO_HOLE } from '../sdk.js';
import type { Command } from '../command.js';
import { erase, RANGE_OPTIONS } from '../erase.js';
import { onlyServer, openServer, SERVER } from '../server.js';
import { CliError } from '../text.js';

export const zero: Command = {
  spec: {
    name: 'zero',
    tool: 'nbdzero',
    summary: 'write zeroes over an export, or a part of it',
    usage: [`[-o N|--offset=N] [-n N|--length=N] [--allocate] [--fast] ${SERVER}`],
    description: ['Uses NBD_CMD_WRITE_ZEROES: no zeroes go over the wire.'],
    options: [
      ...RANGE_OPTIONS,
      { names: ['allocate'], help: 'Keep space allocated: make no holes (NBD_CMD_FLAG_NO_HOLE).' },
      { names: ['fast', 'fast-zero'], help: 'Fail rather than be as slow as writing (NBD_CMD_FLAG_FAST_ZERO).' },
    ],
    examples: [
      ['nbd zero nbd://localhost', 'The whole export.'],
      ['nbd zero -o 1M -n 64k nbd://localhost', 'A part of it.'],
    ],
  },
  async run(args, context) {
    const connection = await openServer(onlyServer(args), context);
    if (connection.isReadOnly()) throw new CliError('the export is read-only, cannot write to it');
    if (!connection.canZero()) throw new CliError('the server does not support zeroing (NBD_CMD_WRITE_ZEROES)');
    const flags =
      (args.has('fua') ? CMD_FLAG_FUA : 0) |
      (args.has('allocate') ? CMD_FLAG_NO_HOLE : 0) |
      (args.has('fast') ? CMD_FLAG_FAST_ZERO : 0);
    await erase(connection, args, context, (count, offset) => connection.zero(count, offset, flags, context.signal));
  },
};
