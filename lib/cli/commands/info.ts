// `nbd info`, the counterpart of nbdinfo. Invariant: nothing is written to standard output unless the answer is complete.

import { CONTEXT_BASE_ALLOCATION, type NbdConnection, NbdError } from '../sdk.js';
import type { Operand, ParsedArguments } from '../arguments.js';
import type { CliCommand, CommandContext } from '../command.js';
import type { CliCommandSpec } from '../command-spec.js';
import { UsageError } from '../errors.js';
import { collectReport, type ExportReport, informed, opensExport, reportJson, reportText } from '../info/report.js';
import { messageOf, hintOf } from '../output/failure.js';
import { CAN_NAMES, CANNOT_NAMES, findQuestion, PROPERTIES, type Question } from '../info/features.js';
import { canonicalUri, CONNECT_OPTIONS, onlyServer, openServer, SERVER } from '../server.js';
import { KNOWN_CONTEXTS } from '../map/contexts.js';
import { choosePaint, COLOUR_OPTIONS, COLOURS, jsonString } from '../output/text.js';
import { visible } from '../../util/visible.js';

const spec: CliCommandSpec = {
  name: 'info',
  tool: 'nbdinfo',
  summary: 'show information about an export, or about all exports of a server',
  usage: [
    `[--json] [--partitions] ${SERVER}`,
    `--size | --uri ${SERVER}`,
    `--is read-only|rotational|tls ${SERVER}`,
    `--can cache|connect|... ${SERVER}`,
    `--map[=CONTEXT] [--totals] [--json] ${SERVER}`,
    `-L|--list [--json] [--partitions] ${SERVER}`,
  ],
  description: [
    'Takes the options of nbdinfo and prints what nbdinfo prints.',
    'The exit code is 0, or 1 after an error; nothing is written to standard output then. --can, --is, --has and their ' +
      'negations print nothing: their exit code is 0 for yes, 2 for no, and 1 after an error.',
  ],
  options: [
    {
      names: [...CAN_NAMES],
      takes: 'value',
      value: 'X',
      choices: PROPERTIES,
      help:
        'Report in the exit code whether the export has a property: connect, open, read, write, tls, ' +
        'structured-reply, extended-headers, read-only, rotational, block-status-payload, cache, df, fast-zero, ' +
        'flush, fua, multi-conn, trim, zero. connect, read, tls, structured-reply and extended-headers are properties ' +
        'of the server: they are reported even if the export cannot be opened.',
    },
    { names: [...CANNOT_NAMES], takes: 'value', value: 'X', choices: PROPERTIES, help: 'The opposite of --can.' },
    ...COLOUR_OPTIONS,
    { names: ['content'], help: 'Let file(1) guess the content. (default, but not with --list)' },
    { names: ['no-content'], help: 'Do not guess the content.' },
    { names: ['json'], help: 'Print JSON.' },
    { names: ['list'], short: 'L', help: 'Show all exports of the server; the export name in the URI is ignored.' },
    {
      names: ['map'],
      takes: 'optional',
      value: 'CONTEXT',
      choices: KNOWN_CONTEXTS,
      help: 'Print the extents of a metadata context. Default base:allocation.',
    },
    { names: ['totals', 'total'], help: 'With --map: print the number of bytes of each type.' },
    {
      names: ['partitions'],
      yields: true,
      help:
        'Show the partition table too: GPT, or MBR with its logical partitions, and what is wrong with it. Of a GPT ' +
        'that is damaged at the beginning, the backup is shown.',
    },
    { names: ['size'], help: 'Print only the size in bytes.' },
    { names: ['uri'], help: 'Print only the URI of the export, in its canonical form.' },
    ...CONNECT_OPTIONS,
  ],
  examples: [
    ['nbd info nbd://localhost', 'Everything about the default export.'],
    ['nbd info --json nbd://localhost/disk | jq .exports[0]', 'The same for programs.'],
    ['nbd info --partitions -- [ qemu-nbd -r -f qcow2 file.qcow2 ]', 'With the partitions in an image.'],
    ['nbd info --can cache nbd://localhost && nbd cache nbd://localhost', 'Prefetch only if the server can.'],
    ['nbd info --map --totals -- [ qemu-nbd -r -f qcow2 file.qcow2 ]', 'How much of an image is data.'],
  ],
};

export const info: CliCommand = { spec, run };

/** Also used by `nbd list`. */
export async function run(args: ParsedArguments, context: CommandContext): Promise<number> {
  const can = args.last('can', 'cannot');
  const modes = [can !== undefined, args.has('list'), args.has('map'), args.has('size'), args.has('uri')];
  if (modes.filter(Boolean).length > 1) {
    throw new UsageError('you cannot use --can, --list, --map, --size and --uri together');
  }
  if (args.has('content') && args.has('no-content')) {
    throw new UsageError('you cannot use --content and --no-content together');
  }
  // nbdinfo's message, word for word.
  if (args.has('totals') && !args.has('map')) throw new UsageError('you must use --totals only with --map option');
  if (args.has('partitions') && modes.some((mode, index) => mode && index !== 1)) {
    throw new UsageError('--partitions has no effect with --can, --map, --size and --uri');
  }
  const server = onlyServer(args);

  if (can !== undefined) return answer(args, can, server, context);
  if (args.has('map')) {
    const { showMap } = await import('../map/report.js');
    await showMap(args, args.value('map') ?? CONTEXT_BASE_ALLOCATION, server, context);
    return 0;
  }
  if (args.has('size')) {
    const connection = await openServer(server, context);
    await context.out(`${connection.getSize()}\n`);
    return 0;
  }
  if (args.has('uri')) {
    const connection = await openServer(server, context, { optMode: true });
    const uri = canonicalUri(connection, server);
    if (uri === null) throw new UsageError('--uri: a server started for this command has no URI that remains valid');
    await context.out(`${args.has('json') ? jsonString(uri) : visible(uri)}\n`);
    return 0;
  }
  return args.has('list') ? showAll(args, server, context) : showOne(args, server, context);
}

async function answer(args: ParsedArguments, which: string, server: Operand, context: CommandContext): Promise<number> {
  const question = findQuestion(args.value(which) ?? '');
  // Option mode: properties of the server are known before an export is opened.
  const connection = await openServer(server, context, { optMode: true });
  const isTrue = (question.needs !== 'opening' || (await canOpen(connection))) && (await ask(question, connection));
  return isTrue === (which === 'can') ? 0 : 2;
}

async function ask(question: Question, connection: NbdConnection): Promise<boolean> {
  if (question.needs === 'export' && connection.aioIsNegotiating()) {
    connection.setRequestMetaContext(false);
    await informed(connection);
  }
  return question.ask(connection);
}

/** Whether the server opens the export. Its refusal is an answer, a lost connection is an error. */
async function canOpen(connection: NbdConnection): Promise<boolean> {
  if (!connection.aioIsNegotiating()) return true;
  try {
    await connection.optGo();
    return true;
  } catch (error) {
    if (error instanceof NbdError && error.name === 'NbdOptionError') return false;
    throw error;
  }
}

async function showOne(args: ParsedArguments, server: Operand, context: CommandContext): Promise<number> {
  const connection = await openServer(server, context, { optMode: true, fullInfo: true });
  const head = describeProtocol(connection);
  const uri = canonicalUri(connection, server);
  const report = await collectReport(connection, {
    uri,
    content: !args.has('no-content'),
    partitions: args.has('partitions'),
  });
  await context.out(assembled(args, head, [report]));
  return 0;
}

async function showAll(args: ParsedArguments, server: Operand, context: CommandContext): Promise<number> {
  const wanted = { content: args.has('content'), partitions: args.has('partitions') };
  const opens = opensExport(wanted);
  const connection = await openServer(server, context, { optMode: true, fullInfo: true });
  const head = describeProtocol(connection);
  const listed = await connection.optList();
  // What is within an export is known only when it is open, so each export needs its own connection. This one is closed first, because
  // some servers serve one client at a time.
  if (opens) await connection.optAbort();

  const another = async (exportName: string): Promise<NbdConnection> => {
    const other = await openServer(server, context, { optMode: true, fullInfo: true, requestMetaContext: false });
    other.setExportName(exportName);
    return other;
  };
  const reports: ExportReport[] = [];
  for (const { name, description } of listed) {
    const each = opens ? await openServer(server, context, { optMode: true, fullInfo: true }) : connection;
    try {
      each.setExportName(name);
      reports.push(await collectReport(each, { description, uri: canonicalUri(each, server), ...wanted, another }));
    } catch (error) {
      // nbdinfo's message, word for word.
      context.warn(`${messageOf(error)} for ${name === '' ? 'the default export' : `export: ${visible(name)}`}`);
      const hint = hintOf(error);
      if (context.verbose && hint !== undefined) context.warn(hint);
    } finally {
      if (opens) await each.shutdown();
    }
  }
  await context.out(assembled(args, head, reports));
  return reports.length === listed.length ? 0 : 1;
}

interface Head {
  readonly protocol: string;
  readonly tls: boolean;
  readonly structured: boolean;
  readonly extended: boolean;
}

function describeProtocol(connection: NbdConnection): Head {
  return {
    protocol: connection.getProtocol(),
    tls: connection.getTlsNegotiated(),
    structured: connection.getStructuredRepliesNegotiated(),
    extended: connection.getExtendedHeadersNegotiated(),
  };
}

function assembled(args: ParsedArguments, head: Head, reports: readonly ExportReport[]): string {
  if (args.has('json')) {
    const exports = reports.length === 0 ? '[]\n' : `[\n${reports.map(reportJson).join(',\n')} ]\n`;
    return (
      `{\n"protocol": ${jsonString(head.protocol)},\n"TLS": ${head.tls},\n"structured": ${head.structured},\n` +
      `"extended": ${head.extended},\n"exports": ${exports}}\n`
    );
  }
  const paint = choosePaint(args.last('color', 'no-color'));
  const packets = head.extended ? 'extended' : head.structured ? 'structured' : 'simple';
  const first =
    `${paint.begin(COLOURS.grey)}protocol: ${head.protocol} ${head.tls ? 'with' : 'without'} TLS, ` +
    `using ${packets} packets\n${paint.end}`;
  return first + reports.map((report) => reportText(report, paint)).join('');
}
