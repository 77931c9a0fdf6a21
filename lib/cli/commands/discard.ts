// `nbd discard`, the counterpart of nbddiscard: discards the data of an export or of a part of it.

import type { CliCommand } from '../command.js';
import { erase, ERASE_OPTIONS } from '../erase.js';
import { SERVER } from '../server.js';

export const discard: CliCommand = {
  spec: {
    name: 'discard',
    tool: 'nbddiscard',
    summary: 'discard the data of an export, or of a part of it',
    usage: [
      `[-y|--yes] [-z|--zero] [-o N|--offset=N] [-n N|--length=N] ${SERVER}`,
      `-c|--check [-z|--zero] [-q|--quiet] [-o N|--offset=N] [-n N|--length=N] ${SERVER}`,
    ],
    description: [
      'Uses NBD_CMD_TRIM. The contents of the range are undefined afterwards, and the server may ignore the request. ALL ' +
        'DATA IN THE RANGE IS LOST. On a terminal, it asks for confirmation; otherwise, --yes is required.',
      'The exit code is 0 if the server accepted every request, and 1 after an error or without confirmation. With ' +
        '--check, it is 0 if the range is sparse (with --zero: reads as zeroes), 2 if it is not, and 1 after an error.',
    ],
    options: [
      {
        names: ['check'],
        short: 'c',
        help: 'Change nothing; check whether the range is already sparse (with --zero: reads as zeroes).',
      },
      { names: ['zero'], short: 'z', help: 'Zero the range instead of discarding it, as nbd zero does.' },
      { names: ['fast-zero'], help: 'As --zero, but fail if zeroing would not be faster than writing.' },
      ...ERASE_OPTIONS,
    ],
    examples: [
      ['nbd discard nbd://localhost', 'The whole export, after confirmation.'],
      ['nbd discard -y -o 1G nbd://localhost', 'All but the first GiB, without confirmation.'],
    ],
  },
  run: (args, context) => erase(args, context, args.has('zero') || args.has('fast-zero') ? 'zero' : 'discard'),
};
