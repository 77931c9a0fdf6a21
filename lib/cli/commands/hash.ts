// `nbd hash`: a checksum of an export, or a block hash, which costs almost nothing for holes.

import { getHashes } from 'node:crypto';
import { blockHash, CONTEXT_BASE_ALLOCATION, hash as hashExport } from '../../index.js';
import type { CliCommand } from '../command.js';
import { PROGRESS_OPTION, withProgress } from '../output/progress.js';
import { givenRange, RANGE_OPTIONS, rangeOf } from '../range.js';
import { openExport, RECONNECT_OPTIONS } from '../copy/reconnect.js';
import { CONNECT_OPTIONS, DEEP_WINDOW, onlyServer, SERVER } from '../server.js';
import { CliError, jsonString } from '../output/text.js';
import { visible } from '../../util/visible.js';

export const hash: CliCommand = {
  spec: {
    name: 'hash',
    summary: 'print the SHA-256 of an export, or a block hash that skips holes',
    usage: [
      `[--algorithm=NAME] [--block] [-o N|--offset=N] [-n N|--length=N] [--no-extents] [-p] [--reconnect=SECONDS] [--retry=N] [--json] ${SERVER}`,
    ],
    description: [
      'Prints what sha256sum prints for a raw copy. Holes are not read; their zeroes are hashed. The exit code is 0, or ' +
        '1 after an error.',
      '--block prints the hash of nbdcopy --blkhash: the hash of the digests of all blocks of 64 KiB and of the size. It ' +
        'costs almost nothing for holes and does not depend on how zeroes are stored. It differs from sha256sum.',
    ],
    options: [
      {
        names: ['algorithm'],
        short: 'a',
        takes: 'value',
        value: 'NAME',
        choices: ['sha256', 'sha512', 'sha384', 'sha1', 'md5', 'blake2b512'],
        help: 'sha256 (the default), sha512, sha1, md5 …',
      },
      { names: ['block'], help: 'Print the block hash.' },
      ...RANGE_OPTIONS,
      { names: ['no-extents'], help: 'Read everything, including holes.' },
      PROGRESS_OPTION,
      { names: ['json'], help: 'Print JSON.' },
      ...RECONNECT_OPTIONS,
      ...CONNECT_OPTIONS,
    ],
    examples: [
      ['nbd hash nbd://localhost', 'The same as the sha256sum of a copy.'],
      ['nbd hash --block nbd://localhost', 'Fast for an export that is mostly empty.'],
    ],
  },
  async run(args, context) {
    const algorithm = (args.value('algorithm') ?? 'sha256').toLowerCase();
    if (!getHashes().some((name) => name.toLowerCase() === algorithm)) {
      throw new CliError(`--algorithm: unknown hash algorithm: ${algorithm}`, {
        hint: 'sha256, sha512, sha1, md5, blake2b512 …',
      });
    }
    givenRange(args);
    const server = onlyServer(args);
    const connection = await openExport(server, context, { metaContexts: [CONTEXT_BASE_ALLOCATION], ...DEEP_WINDOW });
    const range = rangeOf(args, connection.getSize());
    const digest = await withProgress(
      args,
      Number(range.length),
      context,
      (done, total) => `incomplete: ${done} of ${total} were hashed`,
      (report) =>
        (args.has('block') ? blockHash : hashExport)(connection, {
          algorithm,
          ...range,
          extents: !args.has('no-extents'),
          signal: context.signal,
          onProgress: (now) => report(now.done, now),
        }),
    );
    const name = 'word' in server ? server.word : '-';
    const json = `{ "algorithm": ${jsonString(algorithm)}, "block": ${args.has('block')}, "hash": "${digest}" }\n`;
    await context.out(args.has('json') ? json : `${digest}  ${visible(name)}\n`);
  },
};
