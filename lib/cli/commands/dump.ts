// `nbd dump`, the counterpart of nbddump: a hex dump that shows repeated lines as one `*` and does not read holes.

import type { ParsedArguments } from '../arguments.js';
import type { CliCommand } from '../command.js';
import { HexDump } from '../output/hex-dump.js';
import { givenRange, LAST_BLOCK_MAY_BE_SHORT, type Range, RANGE_OPTIONS, rangeOf } from '../range.js';
import { readRange } from '../read-range.js';
import { CONTEXT_BASE_ALLOCATION } from '../sdk.js';
import { CONNECT_OPTIONS, onlyServer, openServer, SERVER } from '../server.js';
import { choosePaint, COLOUR_OPTIONS } from '../output/text.js';

export const dump: CliCommand = {
  spec: {
    name: 'dump',
    tool: 'nbddump',
    summary: 'show the bytes of an export as a hex dump',
    usage: [`[-n N|--length=N] [-o N|--offset=N] ${SERVER}`],
    description: [
      'Takes the options of nbddump and prints what nbddump prints. Lines that repeat the line before are shown as one ' +
        '*, except the last line of the export. Parts that the server reports as zero are not read.',
      'A range that extends past the end of the export is an error; with --limit instead of --length, the dump ends at ' +
        'the end of the export. The exit code is 0, or 1 after an error.',
    ],
    options: [...RANGE_OPTIONS, ...COLOUR_OPTIONS, ...CONNECT_OPTIONS],
    examples: [
      ['nbd dump nbd://localhost', 'Everything.'],
      ['nbd dump -n 512 nbd://localhost', 'The boot sector.'],
      ['nbd dump -o 1048576 -n 4096 -- [ qemu-nbd -r -f qcow2 file.qcow2 ]', 'A part of an image.'],
    ],
  },
  async run(args, context) {
    givenRange(args);
    const connection = await openServer(onlyServer(args), context, {
      metaContexts: [CONTEXT_BASE_ALLOCATION],
      ...LAST_BLOCK_MAY_BE_SHORT,
    });
    const size = connection.getSize();
    const range = limitedRange(args, size);
    const lines = new HexDump(range.offset, size, choosePaint(args.last('color', 'no-color')));
    for await (const piece of readRange(connection, range, context.signal)) {
      const text = piece.bytes === null ? lines.zeroes(piece.length) : lines.add(piece.bytes);
      if (text !== '') await context.out(text);
    }
    await context.out(lines.end());
  },
};

/** --limit is an upper limit: if fewer bytes remain, all of those are shown. --length must fit. */
function limitedRange(args: ParsedArguments, size: bigint): Range {
  const { offset, length } = givenRange(args);
  const isLimit = args.options.findLast(({ name }) => name === 'length')?.spelling === 'limit';
  if (!isLimit || length === undefined || offset > size) return rangeOf(args, size);
  const rest = size - offset;
  return { offset, length: length < rest ? length : rest };
}
