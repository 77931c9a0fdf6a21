// `nbd zero`: nbdzero, zeroes over all or a part of an export.

import type { CliCommand } from '../command.js';
import { erase, ERASE_OPTIONS } from '../erase.js';
import { SERVER } from '../server.js';

export const zero: CliCommand = {
  spec: {
    name: 'zero',
    tool: 'nbdzero',
    summary: 'write zeroes over an export, or a part of it',
    usage: [
      `[-y|--yes] [-o N|--offset=N] [-n N|--length=N] [--allocate] [--fast-zero] ${SERVER}`,
      `-c|--check [-q|--quiet] [-o N|--offset=N] [-n N|--length=N] ${SERVER}`,
    ],
    description: [
      'Uses NBD_CMD_WRITE_ZEROES: no zeroes go over the wire. ALL DATA IN THE RANGE IS LOST. On a terminal it asks ' +
        'first; elsewhere it needs --yes.',
      'The exit code is 0 when all of the range was zeroed, and 1 after an error or where the answer was no. With ' +
        '--check it is 0 if the range reads as zeroes, 2 if it does not, and 1 after an error.',
    ],
    options: [
      { names: ['check'], short: 'c', help: 'Change nothing: check whether the range reads as zeroes already.' },
      { names: ['allocate'], help: 'Keep space allocated: make no holes (NBD_CMD_FLAG_NO_HOLE).' },
      { names: ['fast-zero', 'fast'], help: 'Fail rather than be as slow as writing (NBD_CMD_FLAG_FAST_ZERO).' },
      ...ERASE_OPTIONS,
    ],
    examples: [
      ['nbd zero nbd://localhost', 'The whole export, after a question.'],
      ['nbd zero -y -o 1M -n 64k nbd://localhost', 'A part of it, without one.'],
      ['nbd zero --check nbd://localhost && echo empty', 'Whether there is anything in it.'],
    ],
  },
  run: (args, context) => erase(args, context, 'zero'),
};
