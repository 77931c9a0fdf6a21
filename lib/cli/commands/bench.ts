// `nbd bench`: measures requests per second, bytes per second and latency of a server.

import type { CliCommand, CommandContext } from '../command.js';
import { type BenchResult, type BenchSettings, runBench } from './bench-run.js';
import { CONNECT_OPTIONS, onlyServer, openFurther, openServer, SERVER } from '../server.js';
import { CliError, parseCount, parseSmallSize, roundSize, UsageError } from '../output/text.js';
import { visibleJson } from '../../util/visible.js';

export const bench: CliCommand = {
  spec: {
    name: 'bench',
    summary: 'measure requests per second, throughput and latency of a server',
    usage: [`[--depth=N] [--size=N] [--mix=PERCENT] [--time=SECONDS] [-C N] [--json] ${SERVER}`],
    description: [
      'Sends reads (with --mix also writes) to random offsets, keeps --depth of them in flight, and reports requests ' +
        'per second, throughput and latency. A --mix above 0 overwrites data of the export and requires --force.',
      'The exit code is 0, or 1 after an error.',
    ],
    options: [
      { names: ['depth'], short: 'd', takes: 'value', value: 'N', help: 'Requests in flight. Default 64.' },
      { names: ['size'], short: 's', takes: 'value', value: 'N', help: 'Bytes of each request. Default 4k.' },
      { names: ['mix'], takes: 'value', value: 'PERCENT', help: 'Percentage of requests that write. Default 0.' },
      { names: ['sequential'], help: 'Use sequential offsets instead of random ones.' },
      {
        names: ['time'],
        short: 't',
        takes: 'value',
        value: 'SECONDS',
        help: 'Duration of the measurement. Default 5.',
      },
      {
        names: ['connections'],
        short: 'C',
        takes: 'value',
        value: 'N',
        help: 'Number of connections, if the server allows several. Default 1.',
      },
      { names: ['force'], help: 'Allow --mix to overwrite the export.' },
      { names: ['json'], help: 'Print JSON.' },
      ...CONNECT_OPTIONS,
    ],
    examples: [
      ['nbd bench nbd://localhost', 'Random reads of 4 KiB, 64 in flight.'],
      ['nbd bench --size 1M --depth 8 --sequential nbd://localhost', 'Throughput.'],
      ['nbd bench --mix 30 --force --json nbd://localhost/scratch', '30 % writes, for a program.'],
    ],
  },
  async run(args, context) {
    const number = (name: string, otherwise: number, minimum = 1): number => {
      const text = args.value(name);
      return text === undefined ? otherwise : parseCount(name, text, minimum);
    };
    const settings: BenchSettings = {
      depth: number('depth', 64),
      size: parseSmallSize('size', args.value('size') ?? '4k'),
      mix: number('mix', 0, 0),
      seconds: seconds(args.value('time')),
      sequential: args.has('sequential'),
    };
    const connections = number('connections', 1);
    if (settings.mix > 100) throw new UsageError('--mix: must be from 0 to 100');
    if (settings.size < 1) throw new UsageError('--size: must be at least 1');
    if (settings.mix > 0 && !args.has('force')) {
      throw new CliError('--mix: writes would overwrite the export', {
        hint: 'add --force if its data is no longer needed',
      });
    }
    const server = onlyServer(args);
    const first = await openServer(server, context);
    const others = first.canMultiConn() ? await openFurther(server, context, connections - 1) : [];
    const size = first.getSize();
    if (size < BigInt(settings.size)) throw new CliError(`the export (${size} bytes) is smaller than one request`);
    if (settings.mix > 0 && first.isReadOnly()) throw new CliError('the export is read-only, cannot write to it');
    const result = await runBench([first, ...others], settings, context.signal);
    await printResult(result, settings, args.has('json'), context);
  },
};

function seconds(text = '5'): number {
  const value = Number(text);
  if (value > 0 && value <= 86_400) return value;
  throw new UsageError(`--time: could not parse: ${text}`);
}

async function printResult(
  result: BenchResult,
  settings: BenchSettings,
  json: boolean,
  context: CommandContext,
): Promise<void> {
  if (json) {
    await context.out(`${visibleJson(JSON.stringify({ ...settings, ...result }))}\n`);
    return;
  }
  const rows: [string, string][] = [
    ['requests', `${result.requests} in ${result.elapsed.toFixed(2)} s, ${settings.depth} in flight`],
    ['requests/s', result.requestsPerSecond.toFixed(0)],
    ['throughput', `${roundSize(result.bytesPerSecond)}/s`],
  ];
  for (const [name, value] of Object.entries(result.latency)) rows.push([`latency ${name}`, `${value.toFixed(3)} ms`]);
  const width = Math.max(...rows.map(([name]) => name.length));
  await context.out(rows.map(([name, value]) => `${name.padEnd(width)}  ${value}\n`).join(''));
}
