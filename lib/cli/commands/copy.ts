// `nbd copy`, the counterpart of nbdcopy. Invariant: the exit code is 0 only if every byte of the source is at the
// destination.

import { availableParallelism } from 'node:os';
import type { CopyOptions, CopyResult, Progress } from '../../index.js';
import { copy as copyExport } from '../../bulk/copy.js';
import type { ParsedArguments } from '../arguments.js';
import type { CliCommand, CommandContext } from '../command.js';
import type { CliCommandSpec } from '../command-spec.js';
import { CliError, UsageError } from '../errors.js';
import {
  checkDistinct,
  destinationOf,
  type End,
  finishEnd,
  flushOf,
  moreConnections,
  noteWithoutFlush,
  openDestination,
  openSource,
  OPS,
  sizeOf,
  sourceOf,
} from '../copy/ends.js';
import { checkFlowing, checkpointOf, howToGoOn, PART_OPTIONS, readPart, reportMissing, spanOf } from '../copy/part.js';
import { RECONNECT_OPTIONS } from '../copy/reconnect.js';
import { BLOCK_HASH_OPTIONS, blockHasher, showBlockHash } from '../copy/block-hash.js';
import { makeProgress, PROGRESS_OPTION } from '../output/progress.js';
import { CONNECT_OPTIONS } from '../server.js';
import { humanSize, parseCount, parseSmallSize, roundSize } from '../output/text.js';
import { visible } from '../../util/visible.js';

const spec: CliCommandSpec = {
  name: 'copy',
  tool: 'nbdcopy',
  summary: 'copy to and from NBD servers',
  usage: [
    '[--allocated] [--bitmap=CONTEXT | --ranges=FILE] [--blkhash[=ALG[/SIZE]]] [--blkhash-file=FILE] ' +
      '[--checkpoint=FILE] [-C N|--connections=N] [--destination-is-zero] [--destination-offset=N] [--flush] ' +
      '[-n N|--length=N] [--no-extents] [-o N|--offset=N] [-p|--progress[=FD]] [--queue-size=N] [--rate=N] ' +
      '[--reconnect=SECONDS] [--request-size=N] [-R N|--requests=N] [--retry=N] [--salvage] [-S N|--sparse=N] ' +
      '[--synchronous] [-T N|--threads=N] ' +
      '[--timeout=SECONDS] [--connect-timeout=SECONDS] [--export-name-only] [--wait=SECONDS] SOURCE DESTINATION',
    '',
    'SOURCE, DESTINATION := - | FILE | DEVICE | NBD-URI | [ CMD ARGS ... ]',
    'DESTINATION += null:',
  ],
  description: [
    'Takes the options of nbdcopy. Holes are neither read nor sent; zeroes that were read are not sent either.',
    'The exit code is 0 only when everything was copied. After an error, or Ctrl-C, a line reports how far it came, and ' +
      'the destination holds a part of the source. With --checkpoint the same command continues from there.',
    'With --reconnect the copy goes on when a server was away. The destination is flushed in the end then, and what its ' +
      'server has lost is copied again.',
    'With --bitmap, --ranges, --offset or --length only a part is copied. Its bytes keep their places, unless ' +
      '--destination-offset gives another one, and the rest of a destination file stays as it is.',
  ],
  operands: { files: true },
  options: [
    ...BLOCK_HASH_OPTIONS,
    { names: ['allocated'], help: 'Allocate space for zeroes in the destination too: make no holes.' },
    {
      names: ['connections'],
      short: 'C',
      takes: 'value',
      value: 'N',
      help: 'Number of connections, if both ends allow several. Default 4, limited to the number of threads.',
    },
    {
      names: ['destination-is-zero', 'target-is-zero'],
      help: 'The destination already reads as zeroes: do not write zeroes, unless --allocated is given.',
    },
    {
      names: ['destination-offset'],
      takes: 'value',
      value: 'N',
      help: 'Where the first byte goes in the destination. Default: the value of --offset.',
    },
    { names: ['flush'], help: 'Flush the destination at the end. Implied by --reconnect and --retry.' },
    ...PART_OPTIONS,
    { names: ['no-extents'], help: 'Read everything, including holes.' },
    PROGRESS_OPTION,
    {
      names: ['queue-size'],
      takes: 'value',
      value: 'N',
      help: 'The most bytes in flight for each connection. Default: as many as make it faster, up to 256M in all; with --requests, 16M.',
    },
    {
      names: ['request-size'],
      takes: 'value',
      value: 'N',
      help: 'Bytes of one request: a power of 2 from 4096 to 32M. Default 1M, or 256k for a source below 16M.',
    },
    {
      names: ['requests'],
      short: 'R',
      takes: 'value',
      value: 'N',
      help: 'Requests in flight for each connection. Default: as many as make it faster.',
    },
    {
      names: ['sparse'],
      short: 'S',
      takes: 'value',
      value: 'N',
      help: 'Detect zeroes in blocks of this size: a power of 2 from 512; 0 disables it. Default 4096.',
    },
    { names: ['synchronous'], help: 'One request at a time, in order.' },
    {
      names: ['threads'],
      short: 'T',
      takes: 'value',
      value: 'N',
      help: 'Accepted for compatibility with nbdcopy: limits the connections. Default: the number of cores.',
    },
    ...RECONNECT_OPTIONS,
    ...CONNECT_OPTIONS,
  ],
  examples: [
    ['nbd copy nbd://example.com local.img', 'From a server to a file.'],
    ['nbd copy -p local.img nbd://example.com', 'The other way, with a progress bar.'],
    ['nbd copy nbd://example.com - | file -', 'To standard output.'],
    ['nbd copy --bitmap=b0 nbd://example.com backup.img', 'What has changed since the bitmap was started.'],
    [
      'cat disk1 disk2 | nbd copy -- - [ qemu-nbd -f qcow2 output.qcow2 ]',
      'Into an image, with a server for this copy.',
    ],
  ],
};

const KIB = 1024;
const MIN_REQUEST = 4 * KIB;
const MAX_REQUEST = 32 * KIB * KIB;
/** nbdcopy uses 256 KiB, which takes Node 30 % more processor time, because each request is a separate write. */
const DEFAULT_REQUEST = KIB * KIB;
/** Sources below this size are copied with requests of 256 KiB: too few larger ones would be in flight. */
const SMALL_SOURCE = 16 * KIB * KIB;
const SMALL_REQUEST = 256 * KIB;
/** What nbdcopy shows, and what a copy begins with. */
const DEFAULT_REQUESTS = 64;
/** nbdcopy's, for each connection. */
const DEFAULT_QUEUE = 16 * KIB * KIB;

export const copy: CliCommand = { spec, run };

async function run(args: ParsedArguments, context: CommandContext): Promise<number> {
  const settings = readSettings(args);
  const [from, to, extra] = args.operands;
  if (from === undefined || to === undefined) throw new UsageError('missing SOURCE or DESTINATION');
  if (extra !== undefined) throw new UsageError('too many operands: expected SOURCE and DESTINATION');
  const hasher = blockHasher(args);
  if (hasher !== null && !args.has('blkhash-file') && 'word' in to && to.word === '-') {
    throw new UsageError('--blkhash: cannot print the hash, standard output is the destination', {
      hint: 'write the hash to a file with --blkhash-file=FILE',
    });
  }

  const part = await readPart(args, context);
  const { connections: atMost } = settings;
  const contexts = part.bitmap === undefined ? [] : [part.bitmap];
  const source = await openSource(from, context, { contexts, connections: atMost });
  const destination = await openDestination(to, context, { connections: atMost });
  if (destination.kind === 'nbd' && destination.connection.isReadOnly()) {
    // nbdcopy's message, word for word.
    throw new CliError(`${destination.name}: the destination is read-only, cannot write to it`);
  }
  checkDistinct(source, destination, context);
  noteWithoutFlush(destination, context);
  const size = await sizeOf(source);
  const span = size === null ? null : spanOf(part, size);
  const isFile = destination.kind === 'file' && destination.stats.isFile();
  const room = isFile ? (span?.end ?? null) : await sizeOf(destination);
  if (span !== null && room !== null && span.end > room) {
    const what = part.isWhole ? 'source size' : 'the end of what is copied';
    throw new CliError(`error: destination size is smaller than ${what} (${room} < ${span.end} bytes)`);
  }
  if (!part.isWhole && destination.kind === 'file') destination.target?.keep();
  const requestSize = requestSizeFor(args, settings, size);
  const synchronous = settings.synchronous || source.kind === 'pipe' || destination.kind === 'pipe';
  const connections = synchronous || !manyAllowed(source) || !manyAllowed(destination) ? 1 : atMost;
  if (context.verbose) {
    describeEnd('src', source, size);
    describeEnd('dst', destination, destination.kind === 'null' ? 2n ** 63n - 1n : room);
    process.stderr.write(
      `nbdcopy: connections=${connections} requests=${settings.requests ?? DEFAULT_REQUESTS} threads=${connections} ` +
        `synchronous=${synchronous}\n`,
    );
  }
  if (synchronous && (source.kind === 'pipe' || destination.kind === 'pipe')) {
    checkFlowing(args, source.kind === 'pipe' ? source.name : destination.name);
    const { stream } = await import('../copy/stream.js');
    const sparse = settings.copy.allocated === true ? 0 : (settings.copy.sparse ?? 0);
    await stream(source, destination, size, sparse, args, context, hasher);
    if (hasher !== null) await showBlockHash(hasher, args, context);
    return 0;
  }

  const bytes = span?.end ?? 0n;
  const [reading, writing] = await Promise.all([
    moreConnections(source, connections, context),
    moreConnections(destination, connections, context),
  ]);
  const progress = await makeProgress(args, Number(span?.length ?? 0n), context);
  const flush = flushOf(args, destination);
  let done = 0n;
  let total = span?.length ?? 0n;
  let result: CopyResult;
  try {
    result = await copyExport(
      await sourceOf(source, size ?? 0n, reading),
      await destinationOf(destination, bytes, writing),
      {
        ...settings.copy,
        ...part.options,
        ...checkpointOf(args, span?.length ?? 0n),
        ...(flush === undefined ? {} : { flush }),
        requestSize,
        ...(hasher === null ? {} : { hash: hasher }),
        ...(synchronous ? { requests: 1, queueSize: requestSize } : depthOf(settings, requestSize, connections)),
        // In order, and for the null destination, there is no use in looking for zeroes.
        ...(synchronous || destination.kind === 'null' ? { sparse: 0 } : {}),
        signal: context.signal,
        onProgress: (now) => {
          done = now.done;
          ({ total } = now);
          // Of a bitmap it is known only now how much there is.
          progress.update(part.bitmap === undefined ? Number(done) : scaled(now, span?.length ?? 0n), now);
        },
      },
    );
    await finishEnd(destination, bytes);
  } catch (error) {
    progress.stop();
    context.warn(`the copy is incomplete: ${roundSize(done)} of ${roundSize(total)} were copied`);
    await howToGoOn(args, context, error);
    throw error;
  }
  progress.finish();
  if (context.verbose) context.warn(`bytes in flight=${humanSize(BigInt(result.inFlight))}`);
  reportMissing(result, context);
  if (hasher !== null) await showBlockHash(hasher, args, context);
  return result.missing.length === 0 ? 0 : 1;
}

/** As a share of the bar's own total. */
const scaled = ({ done, total }: Progress, length: bigint): number =>
  total === 0n ? 0 : Number((done * length) / total);

/** What is in flight: as asked, but never less than one request; else as much as pays. */
function depthOf(
  { requests, queueSize }: CopySettings,
  requestSize: number,
  connections: number,
): Pick<CopyOptions, 'requests' | 'queueSize'> {
  // With a number of requests, nbdcopy's limit holds: they may be long.
  const most = queueSize ?? (requests === null ? null : DEFAULT_QUEUE);
  return {
    ...(requests === null ? {} : { requests: requests * connections }),
    ...(most === null ? {} : { queueSize: Math.max(most * connections, requestSize) }),
  };
}

function requestSizeFor(args: ParsedArguments, { copy }: CopySettings, size: bigint | null): number {
  return args.has('request-size') || size === null || size >= SMALL_SOURCE ? copy.requestSize : SMALL_REQUEST;
}

interface CopySettings {
  readonly connections: number;
  /** For each connection; null for as many as pay. */
  readonly requests: number | null;
  readonly queueSize: number | null;
  readonly synchronous: boolean;
  readonly copy: CopyOptions & { requestSize: number };
}

function readSettings(args: ParsedArguments): CopySettings {
  const number = (name: string, otherwise: number, minimum = 1): number => {
    const text = args.value(name);
    return text === undefined ? otherwise : parseCount(name, text, minimum);
  };
  const bytes = (name: string, otherwise: number): number => {
    const text = args.value(name);
    return text === undefined ? otherwise : parseSmallSize(name, text);
  };
  const isPower = (value: number): boolean => Number.isInteger(Math.log2(value));
  const requestSize = bytes('request-size', DEFAULT_REQUEST);
  if (requestSize < MIN_REQUEST || requestSize > MAX_REQUEST || !isPower(requestSize)) {
    // This message and the next are nbdcopy's, word for word.
    throw new UsageError(`--request-size: must be a power of 2 within ${MIN_REQUEST}-${MAX_REQUEST}`);
  }
  const sparse = bytes('sparse', 4 * KIB);
  if (sparse !== 0 && (sparse < 512 || !isPower(sparse))) {
    throw new UsageError('--sparse: must be a power of 2 and >= 512');
  }
  const threads = number('threads', 0, 0);
  return {
    connections: Math.min(number('connections', 4), threads === 0 ? availableParallelism() : threads),
    requests: args.value('requests') === undefined ? null : number('requests', 64),
    queueSize: args.value('queue-size') === undefined ? null : bytes('queue-size', 0),
    synchronous: args.has('synchronous'),
    copy: {
      requestSize,
      sparse,
      allocated: args.has('allocated'),
      // Zeroes that are left out would not be allocated.
      destinationIsZero: args.has('destination-is-zero') && !args.has('allocated'),
      extents: !args.has('no-extents'),
    },
  };
}

/** Whether an end can use several connections. A server that was started for this command serves one. */
function manyAllowed(end: End): boolean {
  return end.kind !== 'nbd' || ('word' in end.operand && end.connection.canMultiConn());
}

/** Prints nbdcopy's --verbose lines, word for word, for scripts that parse them. */
function describeEnd(which: string, end: End, size: bigint | null): void {
  const shown = size === null ? '-1 (18446744073709551615)' : `${size} (${humanSize(size)})`;
  process.stderr.write(
    `nbdcopy: ${which}: ${OPS[end.kind]} "${visible(end.name)}"\nnbdcopy: ${which}: size=${shown}, preferred block size=4096\n`,
  );
}
