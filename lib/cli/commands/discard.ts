// `nbd discard`: nbddiscard, which tells the server that all or a part of an export is not needed.

import type { CliCommand } from '../command.js';
import { erase, ERASE_OPTIONS } from '../erase.js';
import { SERVER } from '../server.js';

export const discard: CliCommand = {
  spec: {
    name: 'discard',
    tool: 'nbddiscard',
    summary: 'tell the server that an export, or a part of it, is not needed',
    usage: [
      `[-y|--yes] [-z|--zero] [-o N|--offset=N] [-n N|--length=N] ${SERVER}`,
      `-c|--check [-z|--zero] [-q|--quiet] [-o N|--offset=N] [-n N|--length=N] ${SERVER}`,
    ],
    description: [
      'Uses NBD_CMD_TRIM. What the range reads as afterwards is up to the server, which may also do nothing. ALL DATA ' +
        'IN THE RANGE IS LOST. On a terminal it asks first; elsewhere it needs --yes.',
      'The exit code is 0 when the server accepted every request, and 1 after an error or where the answer was no. With ' +
        '--check it is 0 if the range is sparse (with --zero: reads as zeroes), 2 if it is not, and 1 after an error.',
    ],
    options: [
      {
        names: ['check'],
        short: 'c',
        help: 'Change nothing: check whether the range is sparse already; with --zero, whether it reads as zeroes.',
      },
      { names: ['zero'], short: 'z', help: 'Zero the range instead of discarding it, as nbd zero does.' },
      { names: ['fast-zero'], help: 'As --zero, but fail rather than be as slow as writing.' },
      ...ERASE_OPTIONS,
    ],
    examples: [
      ['nbd discard nbd://localhost', 'The whole export, after a question.'],
      ['nbd discard -y -o 1G nbd://localhost', 'All but the first GiB, without one.'],
    ],
  },
  run: (args, context) => erase(args, context, args.has('zero') || args.has('fast-zero') ? 'zero' : 'discard'),
};
