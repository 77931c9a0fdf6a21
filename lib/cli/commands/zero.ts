// `nbd zero`, the counterpart of nbdzero: zeroes an export or a part of it.

import type { CliCommand } from '../command.js';
import { erase, ERASE_OPTIONS } from '../erase.js';
import { SERVER } from '../server.js';

export const zero: CliCommand = {
  spec: {
    name: 'zero',
    tool: 'nbdzero',
    summary: 'zero an export, or a part of it',
    usage: [
      `[-y|--yes] [-o N|--offset=N] [-n N|--length=N] [--allocate] [--fast-zero] ${SERVER}`,
      `-c|--check [-q|--quiet] [-o N|--offset=N] [-n N|--length=N] ${SERVER}`,
    ],
    description: [
      'Uses NBD_CMD_WRITE_ZEROES: no zeroes are sent over the wire. ALL DATA IN THE RANGE IS LOST. On a terminal, it ' +
        'asks for confirmation; otherwise, --yes is required.',
      'The exit code is 0 if all of the range was zeroed, and 1 after an error or without confirmation. With --check, it ' +
        'is 0 if the range reads as zeroes, 2 if it does not, and 1 after an error.',
    ],
    options: [
      { names: ['check'], short: 'c', help: 'Change nothing; check whether the range already reads as zeroes.' },
      { names: ['allocate'], help: 'Keep space allocated: make no holes (NBD_CMD_FLAG_NO_HOLE).' },
      {
        names: ['fast-zero', 'fast'],
        help: 'Fail if zeroing would not be faster than writing (NBD_CMD_FLAG_FAST_ZERO).',
      },
      ...ERASE_OPTIONS,
    ],
    examples: [
      ['nbd zero nbd://localhost', 'The whole export, after confirmation.'],
      ['nbd zero -y -o 1M -n 64k nbd://localhost', 'A part of it, without confirmation.'],
      ['nbd zero --check nbd://localhost && echo empty', 'Check whether it is all zeroes.'],
    ],
  },
  run: (args, context) => erase(args, context, 'zero'),
};
