// `nbd serve`: serves files and memory with the embedded server, on TCP, on a Unix socket, or on a socket passed by
// systemd or by a client (socket activation).

import { readFile, stat } from 'node:fs/promises';
import type { Stats } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import {
  FileBackend,
  MemoryBackend,
  type NbdBackend,
  NbdServer,
  type NbdServerTlsOptions,
  OverlayBackend,
} from '../../server/index.js';
import { parsePskFile } from '../../util/psk-file.js';
import type { ParsedArguments } from '../arguments.js';
import type { CliCommand, CommandContext } from '../command.js';
import { CliError, UsageError } from '../errors.js';
import { deviceSize } from '../../bulk/ends/device-size.js';
import { parentEnded, privateSocketPath, runInShell, standardStreams } from './serve-ways.js';
import { systemReason } from '../../util/system-reason.js';
import { parseCount, parseSize, parseSmallSize } from '../output/text.js';

export const serve: CliCommand = {
  spec: {
    name: 'serve',
    summary: 'serve files or memory to NBD clients',
    usage: [
      '[OPTIONS] FILE | NAME=FILE ...',
      '[OPTIONS] --memory=SIZE',
      '[OPTIONS] --memory=NAME=SIZE --memory=NAME=SIZE ...',
    ],
    description: [
      'Prints the URI of each export, then serves until it is stopped. A single file or memory is the default export. ' +
        'If sockets are passed by systemd, or by a client that starts it ([ nbd serve disk.img ]), it listens on those.',
      'The command of --run has the shell variables of nbdkit: $uri, $unixsocket or $port, $exportname, and $nbd (the ' +
        'old syntax of QEMU).',
    ],
    operands: { servers: false, files: true },
    options: [
      { names: ['memory'], short: 'm', takes: 'value', value: '[NAME=]SIZE', help: 'An empty export in memory.' },
      { names: ['name'], short: 'e', takes: 'value', value: 'NAME', help: 'The name of a single export.' },
      {
        names: ['description'],
        takes: 'value',
        value: 'TEXT',
        help: 'The description sent to clients that request it.',
      },
      { names: ['read-only'], short: 'r', help: 'Refuse writes.' },
      { names: ['unix'], short: 'U', takes: 'value', value: 'PATH', help: 'Listen on a Unix socket.' },
      {
        names: ['host', 'ipaddr'],
        short: 'i',
        takes: 'value',
        value: 'HOST',
        help: 'Listen on this address. Default 127.0.0.1.',
      },
      { names: ['port'], takes: 'value', value: 'N', help: 'Listen on this port; 0 for a free one. Default 10809.' },
      {
        names: ['tls-certificates'],
        takes: 'value',
        value: 'DIR',
        help: 'Require TLS, with server-cert.pem and server-key.pem from this folder.',
      },
      { names: ['tls-verify-peer'], help: 'Require a client certificate signed by ca-cert.pem.' },
      {
        names: ['tls-psk'],
        takes: 'value',
        value: 'FILE',
        help: 'Require TLS, with pre-shared keys from this file: one USER:HEXKEY per line.',
      },
      { names: ['tls-optional'], help: 'Also serve clients without TLS.' },
      {
        names: ['max-connections'],
        takes: 'value',
        value: 'N',
        help: 'Maximum number of clients at the same time; further ones are disconnected. Default 1000.',
      },
      { names: ['single'], short: 's', help: 'Serve one client, on standard input and output.' },
      {
        names: ['run'],
        takes: 'value',
        value: 'COMMAND',
        help: 'Run a shell command, serve until it ends, and exit with its status.',
      },
      { names: ['exit-with-parent'], help: 'Stop when the parent process ends.' },
      { names: ['overlay'], help: 'Keep what clients write in memory; the files stay as they are.' },
      {
        names: ['rate'],
        takes: 'value',
        value: 'N',
        help: 'Bytes per second, of reads and as many of writes (suffixes k, M, G …). Default: no limit.',
      },
      {
        names: ['error-rate'],
        takes: 'value',
        value: 'PERCENT',
        help: 'Fail this share of the requests with EIO, to test clients. Default 0.',
      },
      {
        names: ['seed'],
        takes: 'value',
        value: 'N',
        help: 'Which requests --error-rate fails; the same seed fails the same ones. Default 0.',
      },
      { names: ['detect-zeroes'], help: 'Read files to report zeroes in block status.' },
    ],
    examples: [
      ['nbd serve disk.img', 'A file on nbd://localhost.'],
      ['nbd serve --unix /tmp/s --memory 1G', 'A gibibyte of memory on a Unix socket.'],
      ['nbd serve -r root=root.img data=data.img', 'Two named exports.'],
      ['nbd info [ nbd serve disk.img ]', 'A server for one command.'],
      ["nbd serve disk.img --run 'qemu-img info $uri'", 'The same for a command without [ CMD ].'],
    ],
  },
  endsBySignal: true,
  async run(args, context) {
    checkCombinations(args);
    const backends = await openBackends(args);
    const tls = await readTls(args);
    const maxConnections = args.value('max-connections');
    const rate = args.value('rate');
    const server = new NbdServer({
      rate: rate === undefined ? undefined : parseRate(rate),
      seed: parseCount('seed', args.value('seed') ?? '0', 0),
      ...(maxConnections === undefined ? {} : { maxConnections: parseCount('max-connections', maxConnections) }),
      ...(tls === undefined
        ? {}
        : { tls: args.has('tls-optional') ? ('on' as const) : ('require' as const), tlsOptions: tls }),
      onConnectionError: (error) => {
        if (context.verbose) context.warn(error.message);
      },
    });
    context.onEnd(() => server.close());
    const probability = parsePercent(args.value('error-rate') ?? '0');
    if (probability > 0) server.faults.push({ probability, error: 'EIO' });
    const description = args.value('description');
    for (const [name, backend] of backends) {
      server.addExport(name, {
        backend,
        readOnly: args.has('read-only'),
        ...(description === undefined ? {} : { description }),
      });
    }
    const stopped = new Promise<void>((resolve) => {
      context.signal.addEventListener('abort', () => resolve());
      if (context.signal.aborted) resolve();
      if (args.has('exit-with-parent')) void parentEnded().then(resolve);
    });
    const code = await serveUntil(stopped, server, backends[0]?.[0] ?? '', args, context, async () => {
      for (const [name] of backends) await context.out(`${server.uri(name)}\n`);
    });
    // Closed here, not only in the cleanup, so that a backend that cannot be closed makes the command fail.
    await server.close();
    return code;
  },
};

function parseRate(text: string): number {
  const rate = parseSmallSize('rate', text);
  if (rate < 1) throw new UsageError('--rate: must be at least 1 byte per second');
  return rate;
}

/** The value of --error-rate as a fraction: `5` and `5%` are the same. */
function parsePercent(text: string): number {
  const [, number = ''] = /^(\d+(?:\.\d+)?)%?$/.exec(text) ?? [];
  const percent = number === '' ? NaN : Number(number);
  if (!(percent >= 0 && percent <= 100)) {
    throw new UsageError(`--error-rate: must be a percentage from 0 to 100, not ${JSON.stringify(text)}`);
  }
  return percent / 100;
}

/** Serves as the options request. Resolves with the exit code when it is time to stop. */
async function serveUntil(
  stopped: Promise<void>,
  server: NbdServer,
  exportName: string,
  args: ParsedArguments,
  context: CommandContext,
  announce: () => Promise<void>,
): Promise<number> {
  const command = args.value('run');
  const activated = activationSockets();
  if (activated > 0 && (command !== undefined || args.has('single'))) {
    throw new UsageError('you cannot use --run or --single with socket activation (LISTEN_FDS is set)');
  }
  if (args.has('single')) {
    const stream = standardStreams(context);
    const closed = new Promise<void>((resolve) => stream.once('close', () => resolve()));
    server.serve(stream);
    await Promise.race([closed, stopped]);
    return 0;
  }
  if (activated > 0) {
    await listenOnActivationSockets(server, activated, context);
  } else {
    const isPrivate = command !== undefined && !args.has('unix') && !args.has('port') && !args.has('host');
    await listen(server, args, isPrivate ? await privateSocketPath(context) : args.value('unix'));
    const { address } = server;
    if (command !== undefined && address !== null) {
      const abort = new AbortController();
      void stopped.then(() => abort.abort());
      return runInShell(command, { uri: server.uri(exportName), exportName, address }, abort.signal);
    }
    await announce();
  }
  await stopped;
  return 0;
}

/** Refuses options that exclude each other, and options that have no effect without another one. */
function checkCombinations(args: ParsedArguments): void {
  const exclude = (one: string, ...others: string[]): void => {
    const other = others.find((name) => args.has(name));
    if (args.has(one) && other !== undefined) throw new UsageError(`you cannot use --${one} and --${other} together`);
  };
  exclude('single', 'unix', 'port', 'host', 'run', 'max-connections');
  exclude('unix', 'port', 'host');
  exclude('tls-certificates', 'tls-psk');
  exclude('tls-psk', 'tls-verify-peer');
  exclude('overlay', 'read-only');
  if (args.has('seed') && !args.has('error-rate')) throw new UsageError('--seed requires --error-rate');
  for (const name of ['tls-optional', 'tls-verify-peer']) {
    if (args.has(name) && !args.has('tls-certificates') && !args.has('tls-psk')) {
      throw new UsageError(`--${name} requires --tls-certificates${name === 'tls-optional' ? ' or --tls-psk' : ''}`, {
        hint: 'without it, clients would be served in plaintext',
      });
    }
  }
  for (const name of ['host', 'unix', 'tls-certificates', 'tls-psk', 'run']) {
    if (args.value(name)?.trim() === '') throw new UsageError(`--${name}: the value is empty`);
  }
}

async function openBackends(args: ParsedArguments): Promise<[name: string, backend: NbdBackend][]> {
  const backends: [string, NbdBackend][] = [];
  const readOnly = args.has('read-only');
  for (const { value } of args.options.filter(({ name }) => name === 'memory')) {
    const [name, size] = named(value ?? '');
    backends.push([name, new MemoryBackend(parseSize('memory', size))]);
  }
  for (const operand of args.operands) {
    if ('command' in operand) throw new UsageError('expected a file, not [ CMD ]');
    const [name, path] = named(operand.word);
    try {
      const stats = await stat(path);
      const size = stats.isBlockDevice() ? { size: await deviceSize(path, stats) } : {};
      const why = whyNotServed(stats, size.size);
      if (why !== null) throw new CliError(`${path}: ${why}`);
      const overlay = args.has('overlay');
      const options = { readOnly: readOnly || overlay, detectZeroes: args.has('detect-zeroes'), ...size };
      const file = await FileBackend.open(path, options);
      backends.push([name, overlay ? new OverlayBackend(file) : file]);
    } catch (cause) {
      if (cause instanceof CliError) throw cause;
      throw new CliError(`${path}: ${systemReason(cause)}`, { cause });
    }
  }
  const only = args.value('name');
  if (only !== undefined) {
    if (backends.length > 1) throw new UsageError('--name: cannot name several exports: write NAME=FILE');
    for (const entry of backends) entry[0] = only;
  }
  if (backends.length === 0) throw new UsageError('nothing to serve: give FILE or --memory=SIZE');
  if (new Set(backends.map(([name]) => name)).size < backends.length) {
    throw new UsageError('two exports have the same name', { hint: 'write NAME=FILE' });
  }
  return backends;
}

/** The reason why this file cannot be served; null if it can. */
function whyNotServed(stats: Stats, deviceBytes: number | undefined): string | null {
  if (stats.isFile()) return null;
  if (stats.isBlockDevice()) return deviceBytes === 0 ? 'the size of the device is 0: is there a medium in it?' : null;
  const kind = stats.isDirectory()
    ? 'a directory'
    : stats.isFIFO()
      ? 'a FIFO'
      : stats.isSocket()
        ? 'a socket'
        : 'a device';
  return `is ${kind}, not a file or block device`;
}

function named(text: string): [name: string, rest: string] {
  const equals = text.indexOf('=');
  return equals === -1 ? ['', text] : [text.slice(0, equals), text.slice(equals + 1)];
}

async function readTls(args: ParsedArguments): Promise<NbdServerTlsOptions | undefined> {
  const folder = args.value('tls-certificates');
  const psk = args.value('tls-psk');
  try {
    if (folder !== undefined) {
      const verifyPeer = args.has('tls-verify-peer');
      return {
        cert: await readFile(join(folder, 'server-cert.pem')),
        key: await readFile(join(folder, 'server-key.pem')),
        ...(verifyPeer ? { ca: await readFile(join(folder, 'ca-cert.pem')), verifyPeer } : {}),
        ...(verifyPeer ? await readRevoked(folder) : {}),
      };
    }
    if (psk === undefined) return undefined;
    return { psk: keysOf(await readFile(psk, 'utf8'), psk) };
  } catch (cause) {
    if (cause instanceof CliError) throw cause;
    throw new CliError(`${folder ?? psk ?? ''}: ${systemReason(cause)}`, { cause });
  }
}

/** Reads the revocation list of the folder, if there is one. It is an error if it exists and cannot be read. */
async function readRevoked(folder: string): Promise<{ crl?: Buffer }> {
  try {
    return { crl: await readFile(join(folder, 'ca-crl.pem')) };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {};
    throw error;
  }
}

/** The keys of a psktool file by user. An invalid line is an error: ignoring it would lock out its user. */
function keysOf(text: string, path: string): Record<string, Buffer> {
  const { entries, badLines } = parsePskFile(text);
  if (badLines[0] !== undefined) throw new CliError(`${path}: line ${badLines[0]} is not USER:HEXKEY`);
  if (entries.length === 0) throw new CliError(`${path}: contains no keys`);
  return Object.fromEntries(entries.flatMap(({ user, key }) => (key === null ? [] : [[user, key]])));
}

async function listen(server: NbdServer, args: ParsedArguments, path: string | undefined): Promise<void> {
  const port = args.value('port');
  try {
    if (path !== undefined) await server.listenUnix(path);
    else await server.listenTcp(port === undefined ? 10809 : parseCount('port', port, 0), args.value('host'));
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    throw new CliError(`cannot listen on ${path ?? `port ${port ?? '10809'}`}: ${message}`, {
      cause,
      ...(code === 'EADDRINUSE' ? { hint: 'the address is already in use: choose another --port or --unix' } : {}),
    });
  }
}

/** The first file descriptor of systemd's socket activation protocol (SD_LISTEN_FDS_START). */
const FIRST_SOCKET = 3;

function activationSockets(): number {
  const { LISTEN_PID, LISTEN_FDS } = process.env;
  if (Number(LISTEN_PID) !== process.pid) return 0;
  const count = Number(LISTEN_FDS ?? 0);
  return Number.isSafeInteger(count) && count > 0 ? count : 0;
}

async function listenOnActivationSockets(server: NbdServer, count: number, context: CommandContext): Promise<void> {
  for (let at = 0; at < count; at++) {
    const listener = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => server.serve(socket));
    await new Promise<void>((resolve, reject) => {
      listener.once('error', reject);
      listener.listen({ fd: FIRST_SOCKET + at }, () => resolve());
    });
    context.onEnd(() => {
      listener.close();
    });
  }
}
