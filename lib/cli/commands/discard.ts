// `nbd discard`: nbddiscard, which tells the server that all or a part of an export is not needed.

import { CMD_FLAG_FUA } from '../sdk.js';
import type { Command } from '../command.js';
import { erase, RANGE_OPTIONS } from '../erase.js';
import { onlyServer, openServer, SERVER } from '../server.js';
import { CliError } from '../text.js';

export const discard: Command = {
  spec: {
    name: 'discard',
    tool: 'nbddiscard',
    summary: 'tell the server that an export, or a part of it, is not needed',
    usage: [`[-o N|--offset=N] [-n N|--length=N] ${SERVER}`],
    description: [
      'Uses NBD_CMD_TRIM. What the range reads as afterwards is up to the server, which may also do nothing.',
    ],
    options: RANGE_OPTIONS,
    examples: [
      ['nbd discard nbd://localhost', 'The whole export.'],
      ['nbd discard -o 1G nbd://localhost', 'All but the first GiB.'],
    ],
  },
  async run(args, context) {
    const connection = await openServer(onlyServer(args), context);
    if (connection.isReadOnly()) throw new CliError('the export is read-only, cannot discard any of it');
    if (!connection.canTrim()) throw new CliError('the server does not support discarding (NBD_CMD_TRIM)');
    const flags = args.has('fua') ? CMD_FLAG_FUA : 0;
    await erase(connection, args, context, (count, offset) => connection.trim(count, offset, flags, context.signal));
  },
};
