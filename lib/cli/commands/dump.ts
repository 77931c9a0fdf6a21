// `nbd dump`: nbddump, a hex dump in which repeated lines are one `*` and holes are not read.

import { CONTEXT_BASE_ALLOCATION, extents, type NbdConnection, STATE_ZERO } from '../../index.js';
import { hasAllocation } from '../../stream/prefetch.js';
import type { Command, CommandContext } from '../command.js';
import { HexDump } from '../hex-dump.js';
import { onlyServer, openServer, SERVER } from '../server.js';
import { choosePaint, CliError, COLOUR_OPTIONS, UsageError } from '../text.js';

export const dump: Command = {
  spec: {
    name: 'dump',
    tool: 'nbddump',
    summary: 'show the bytes of an export as a hex dump',
    usage: [`[-n N|--length=N] [-o N|--offset=N] ${SERVER}`],
    description: [
      'Takes the options of nbddump and prints what nbddump prints. A line that repeats the one before is shown as *, ' +
        'except the first and the last. Parts that the server knows to be zero are not read.',
    ],
    options: [
      { names: ['length', 'limit'], short: 'n', takes: 'value', value: 'N', help: 'At most so many bytes.' },
      { names: ['offset', 'skip'], short: 'o', takes: 'value', value: 'N', help: 'Begin here.' },
      ...COLOUR_OPTIONS,
    ],
    examples: [
      ['nbd dump nbd://localhost', 'Everything.'],
      ['nbd dump -n 512 nbd://localhost', 'The boot sector.'],
      ['nbd dump -o 1048576 -n 4096 -- [ qemu-nbd -r -f qcow2 file.qcow2 ]', 'A part of an image.'],
    ],
  },
  async run(args, context) {
    const limit = plainNumber('length', args.value('length'));
    const offset = plainNumber('offset', args.value('offset')) ?? 0n;
    const connection = await openServer(onlyServer(args), context, { metaContexts: [CONTEXT_BASE_ALLOCATION] });
    const size = connection.getSize();
    if (offset > size) {
      throw new CliError(`--offset: ${offset} is beyond the end of the export, ${size} bytes`);
    }
    const rest = size - offset;
    const count = limit === undefined || limit > rest ? rest : limit;
    const lines = new HexDump(offset, size, choosePaint(args.last('color', 'no-color')));
    for await (const piece of pieces(connection, offset, count, context)) {
      const text = piece.bytes === null ? lines.zeroes(piece.length) : lines.add(piece.bytes);
      if (text !== '') await context.out(text);
    }
    await context.out(lines.end());
  },
};

/** nbddump takes no suffixes. */
function plainNumber(option: string, text: string | undefined): bigint | undefined {
  if (text === undefined) return undefined;
  if (!/^\d{1,19}$/.test(text)) throw new UsageError(`could not parse --${option} option: ${text}`);
  return BigInt(text);
}

interface Piece {
  /** Null for zeroes. */
  readonly bytes: Buffer | null;
  readonly length: bigint;
}

const READ_SIZE = 1024n * 1024n;

async function* pieces(
  connection: NbdConnection,
  offset: bigint,
  length: bigint,
  { signal }: CommandContext,
): AsyncGenerator<Piece> {
  if (length === 0n) return;
  if (!hasAllocation(connection)) {
    yield* readAll(connection, offset, offset + length, signal);
    return;
  }
  for await (const extent of extents(connection, { offset, length, signal })) {
    if ((extent.flags & BigInt(STATE_ZERO)) !== 0n) yield { bytes: null, length: extent.length };
    else yield* readAll(connection, extent.offset, extent.offset + extent.length, signal);
  }
}

async function* readAll(
  connection: NbdConnection,
  start: bigint,
  end: bigint,
  signal: AbortSignal,
): AsyncGenerator<Piece> {
  for (let offset = start; offset < end; offset += READ_SIZE) {
    const count = end - offset < READ_SIZE ? end - offset : READ_SIZE;
    yield { bytes: await connection.pread(Number(count), offset, 0, signal), length: count };
  }
}
