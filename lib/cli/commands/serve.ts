// `nbd serve`: the embedded server for files and memory, on TCP, on a Unix socket, or on a socket that systemd or a
// client hands over.

import { readFile, stat } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import {
  FileBackend,
  MemoryBackend,
  type NbdBackend,
  NbdServer,
  type NbdServerTlsOptions,
} from '../../server/index.js';
import { decodeKey } from '../../util/psk-file.js';
import type { ParsedArguments } from '../arguments.js';
import { CliError, type Command, type CommandContext, UsageError } from '../command.js';
import { deviceSize } from '../device-size.js';
import { systemReason } from '../system-reason.js';
import { parseCount, parseSize } from '../text.js';

export const serve: Command = {
  spec: {
    name: 'serve',
    summary: 'serve files or memory to NBD clients',
    usage: [
      '[OPTIONS] FILE | NAME=FILE ...',
      '[OPTIONS] --memory=SIZE',
      '[OPTIONS] --memory=NAME=SIZE --memory=NAME=SIZE ...',
    ],
    description: [
      'Prints the URI of each export, then serves until it is stopped. One file or memory is the default export. With ' +
        'sockets handed over by systemd, or by a client that starts it ([ nbd serve disk.img ]), it listens on those.',
    ],
    options: [
      { names: ['memory'], short: 'm', takes: 'value', value: '[NAME=]SIZE', help: 'An empty export in memory.' },
      { names: ['name'], short: 'e', takes: 'value', value: 'NAME', help: 'What to call a single export.' },
      { names: ['description'], takes: 'value', value: 'TEXT', help: 'A description, for clients that ask for it.' },
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
        help: 'TLS, with server-cert.pem and server-key.pem of a folder; clients without TLS are refused.',
      },
      { names: ['tls-verify-peer'], help: 'Ask clients for a certificate that ca-cert.pem has signed.' },
      {
        names: ['tls-psk'],
        takes: 'value',
        value: 'FILE',
        help: 'TLS with the pre-shared keys of a file, USER:HEXKEY a line.',
      },
      { names: ['tls-optional'], help: 'Serve clients without TLS too.' },
      { names: ['detect-zeroes'], help: 'Read files to tell clients where zeroes are.' },
    ],
    examples: [
      ['nbd serve disk.img', 'A file on nbd://localhost.'],
      ['nbd serve --unix /tmp/s --memory 1G', 'A gibibyte of memory on a Unix socket.'],
      ['nbd serve -r root=root.img data=data.img', 'Two named exports.'],
      ['nbd info [ nbd serve disk.img ]', 'A server for one command.'],
    ],
  },
  async run(args, context) {
    const backends = await openBackends(args);
    const tls = await readTls(args);
    const server = new NbdServer({
      ...(tls === undefined
        ? {}
        : { tls: args.has('tls-optional') ? ('on' as const) : ('require' as const), tlsOptions: tls }),
      onConnectionError: (error) => {
        if (context.verbose) context.warn(error.message);
      },
    });
    context.onEnd(() => server.close());
    const description = args.value('description');
    for (const [name, backend] of backends) {
      server.addExport(name, {
        backend,
        readOnly: args.has('read-only'),
        ...(description === undefined ? {} : { description }),
      });
    }
    const handedOver = socketsHandedOver();
    if (handedOver > 0) await listenOnHandedOver(server, handedOver, context);
    else await listen(server, args);
    if (handedOver === 0) for (const [name] of backends) await context.out(`${server.uri(name)}\n`);
    // A server is ended by a signal, and that is no failure.
    await new Promise<void>((resolve) => {
      context.signal.addEventListener('abort', () => resolve());
    });
  },
};

async function openBackends(args: ParsedArguments): Promise<[name: string, backend: NbdBackend][]> {
  const backends: [string, NbdBackend][] = [];
  const readOnly = args.has('read-only');
  for (const { value } of args.options.filter(({ name }) => name === 'memory')) {
    const [name, size] = named(value ?? '');
    backends.push([name, new MemoryBackend(parseSize('memory', size))]);
  }
  for (const operand of args.operands) {
    if ('command' in operand) throw new UsageError('a file is expected, not [ CMD ]');
    const [name, path] = named(operand.word);
    try {
      const stats = await stat(path);
      const size = stats.isBlockDevice() ? { size: await deviceSize(path, stats) } : {};
      const options = { readOnly, detectZeroes: args.has('detect-zeroes'), ...size };
      backends.push([name, await FileBackend.open(path, options)]);
    } catch (cause) {
      throw new CliError(`${path}: ${systemReason(cause)}`, { cause });
    }
  }
  const only = args.value('name');
  if (only !== undefined) {
    if (backends.length > 1) throw new UsageError('--name: there are several exports: write NAME=FILE');
    for (const entry of backends) entry[0] = only;
  }
  if (backends.length === 0) throw new UsageError('nothing to serve: give FILE or --memory=SIZE');
  if (new Set(backends.map(([name]) => name)).size < backends.length) {
    throw new UsageError('two exports have the same name', { hint: 'write NAME=FILE' });
  }
  return backends;
}

function named(text: string): [name: string, rest: string] {
  const equals = text.indexOf('=');
  return equals === -1 ? ['', text] : [text.slice(0, equals), text.slice(equals + 1)];
}

async function readTls(args: ParsedArguments): Promise<NbdServerTlsOptions | undefined> {
  const folder = args.value('tls-certificates');
  const psk = args.value('tls-psk');
  if (folder !== undefined && psk !== undefined) {
    throw new UsageError('you cannot use --tls-certificates and --tls-psk together');
  }
  try {
    if (folder !== undefined) {
      const verifyPeer = args.has('tls-verify-peer');
      return {
        cert: await readFile(join(folder, 'server-cert.pem')),
        key: await readFile(join(folder, 'server-key.pem')),
        ...(verifyPeer ? { ca: await readFile(join(folder, 'ca-cert.pem')), verifyPeer } : {}),
      };
    }
    if (psk === undefined) return undefined;
    return { psk: parseKeys(await readFile(psk, 'utf8'), psk) };
  } catch (cause) {
    if (cause instanceof CliError) throw cause;
    throw new CliError(`${folder ?? psk ?? ''}: ${systemReason(cause)}`, { cause });
  }
}

/** Lines `USER:HEXKEY` as psktool writes them. A line that is none is a mistake, and would lock its user out. */
function parseKeys(text: string, path: string): Record<string, Buffer> {
  const keys = new Map<string, Buffer>();
  for (const [at, line] of text.split(/\r?\n/).entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue;
    const colon = line.indexOf(':');
    const key = decodeKey(line.slice(colon + 1).trim());
    if (colon < 1 || key === null) throw new CliError(`${path}: line ${at + 1} is not USER:HEXKEY`);
    keys.set(line.slice(0, colon), key);
  }
  if (keys.size === 0) throw new CliError(`${path}: there is no key in it`);
  return Object.fromEntries(keys);
}

async function listen(server: NbdServer, args: ParsedArguments): Promise<void> {
  const path = args.value('unix');
  const port = args.value('port');
  try {
    if (path !== undefined) await server.listenUnix(path);
    else await server.listenTcp(port === undefined ? 10809 : parseCount('port', port, 0), args.value('host'));
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    throw new CliError(`cannot listen on ${path ?? `port ${port ?? '10809'}`}: ${message}`, {
      cause,
      ...(code === 'EADDRINUSE' ? { hint: 'something listens there already: choose another --port or --unix' } : {}),
    });
  }
}

/** The first descriptor of systemd's protocol. */
const FIRST_SOCKET = 3;

function socketsHandedOver(): number {
  const { LISTEN_PID, LISTEN_FDS } = process.env;
  return Number(LISTEN_PID) === process.pid ? Number(LISTEN_FDS ?? 0) : 0;
}

async function listenOnHandedOver(server: NbdServer, count: number, context: CommandContext): Promise<void> {
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
