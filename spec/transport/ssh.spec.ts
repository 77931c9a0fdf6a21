// nbd+ssh and nbd+vsock through their helper programs, which are played by scripts that note how they were called:
// what reaches them, and that nothing of a URI can become an option or a shell's command.

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';
import { existsSync } from 'node:fs';
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';

import { NbdConnection, TLS_REQUIRE } from '../../lib/index.js';
import { MemoryBackend, NbdServer } from '../../lib/server/index.js';
import { findProgram, sshCommand, vsockCommands } from '../../lib/transport/programs.js';
import { caught, rejection } from '../support/caught.js';
import { type Certificates, makeCertificates } from '../support/certificates.js';
import { describeWith } from '../support/tools.js';
import { isAlive } from '../support/transport-probe.js';

/** As an ssh server does: the words behind the host are one command line for a shell. */
const SSH = `
for i; do printf '%s\\n' "$i" >> "$NBD_SPEC_CALLS"; done
while [ "$1" != -- ]; do shift; done
shift 2
exec /bin/sh -c "$*"
`;

/** Joins stdin and stdout to a socket. */
const RELAY = `
require('node:fs').appendFileSync(process.env.NBD_SPEC_CALLS, process.argv.slice(2).join('\\n') + '\\n');
const last = process.argv.at(-1);
const where = process.env.NBD_SPEC_SOCKET ?? (/^[0-9]+$/.test(last) ? { host: '127.0.0.1', port: Number(last) } : last);
const socket = require('node:net').connect(where);
socket.on('error', (error) => { console.error(error.message); process.exit(1); });
process.stdin.pipe(socket).pipe(process.stdout);
`;

let folder: string;
let calls: string;
let server: NbdServer;
const path = process.env['PATH'];

async function install(name: string, interpreter: string, script: string): Promise<void> {
  const file = join(folder, name);
  await writeFile(file, `#!${interpreter}\n${script}`);
  await chmod(file, 0o755);
}

/** What the helper was called with. */
const called = async (): Promise<string[]> =>
  existsSync(calls) ? (await readFile(calls, 'utf8')).trimEnd().split('\n') : [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'spec-'));
  calls = join(folder, 'calls');
  server = new NbdServer({ exports: { '': new MemoryBackend(1 << 20), 'a b': new MemoryBackend(2 << 20) } });
  await server.listenUnix(join(folder, 'socket'));
  await server.listenTcp();
});

afterAll(async () => {
  await server.close();
  await rm(folder, { recursive: true });
});

beforeEach(async () => {
  process.env['PATH'] = `${folder}${delimiter}/usr/bin${delimiter}/bin`;
  process.env['NBD_SPEC_CALLS'] = calls;
  for (const name of ['ssh', 'nc', 'socat', 'ncat', 'calls']) await rm(join(folder, name), { force: true });
  await install('ssh', '/bin/sh', SSH);
  await install('nc', process.execPath, RELAY);
});

afterEach(() => {
  process.env['PATH'] = path;
  delete process.env['NBD_SPEC_CALLS'];
  delete process.env['NBD_SPEC_SOCKET'];
});

const portOf = (): number => {
  const [, address] = server.addresses;
  return address !== undefined && 'port' in address ? address.port : 0;
};

describe('an nbd+ssh URI', () => {
  it('reaches a Unix socket on the server', async () => {
    const socket = join(folder, 'socket');
    const connection = await NbdConnection.connect(
      `nbd+ssh://alice@example.com:2222/a%20b?socket=${socket}&compress=1`,
    );
    expect(connection.getSize()).toBe(BigInt(2 << 20));
    await connection.pwrite(Buffer.from('over ssh'), 0);
    expect(String(await connection.pread(8, 0))).toBe('over ssh');
    const pid = connection.getSubprocessPid();
    await connection.shutdown();
    expect(isAlive(pid)).toBe(false);
    expect(await called()).toEqual([
      ...['-T', '-C', '-p', '2222', '-l', 'alice', '--', 'example.com', 'nc', '-U', socket],
      ...['-U', socket],
    ]);
  });

  it('reaches a port on the server', async () => {
    await using connection = await NbdConnection.connect(`nbd+ssh://example.com/?nbd-port=${portOf()}`);
    expect(connection.getSize()).toBe(BigInt(1 << 20));
    expect(connection.getExportName()).toBe('');
    expect(await called()).toEqual([
      ...['-T', '-p', '22', '--', 'example.com', 'nc', 'localhost', String(portOf())],
      ...['localhost', String(portOf())],
    ]);
  });

  it('hands an address over without its brackets', async () => {
    await using _ = await NbdConnection.connect(`nbd+ssh://[fe80::1%25eth0]/?nbd-port=${portOf()}`);
    expect(await called()).toContain('fe80::1%eth0');
  });

  it('reports the output of ssh when it fails', async () => {
    await install('ssh', '/bin/sh', 'echo "alice@example.com: Permission denied (publickey)." >&2; exit 255');
    const error = await rejection(NbdConnection.connect('nbd+ssh://alice@example.com/'));
    expect(error).toMatchObject({ name: 'NbdConnectionError', code: 'ENOTCONN' });
    expect((error as Error).message).toBe(
      'connect to example.com by ssh: the command ssh exited with status 255: alice@example.com: Permission denied (publickey).',
    );
  });

  it('is ENOENT where there is no ssh', async () => {
    process.env['PATH'] = join(folder, 'empty');
    const error = await rejection(NbdConnection.connect('nbd+ssh://example.com/'));
    expect(error).toMatchObject({ code: 'ENOENT' });
    expect((error as Error).message).toMatch(/program not found: ssh$/);
  });

  it.each([
    'nbd+ssh://-oProxyCommand=touch%20PWNED/',
    'nbd+ssh://-oProxyCommand=id/',
    'nbd+ssh://--/',
    'nbd+ssh://-v/',
    'nbd+ssh://%2DoProxyCommand=id/',
    'nbd+ssh://host$(id)/',
    'nbd+ssh://host;id/',
    'nbd+ssh://%60id%60/',
    'nbd+ssh://a%20b/',
    'nbd+ssh://a%0Ab/',
    'nbd+ssh://host!x/',
    'nbd+ssh://-l@host/',
    'nbd+ssh://-oProxyCommand=id@host/',
    'nbd+ssh://a$b@host/',
    'nbd+ssh://a;id@host/',
    'nbd+ssh://a%20b@host/',
    'nbd+ssh://host/?socket=/tmp/a%3Btouch%20PWNED',
    'nbd+ssh://host/?socket=/tmp/$(id)',
    'nbd+ssh://host/?socket=%60id%60',
    'nbd+ssh://host/?socket=/tmp/a%20b',
    'nbd+ssh://host/?socket=/tmp/a%0Aid',
    "nbd+ssh://host/?socket=/tmp/'x'",
    'nbd+ssh://host/?socket=%22x%22',
    'nbd+ssh://host/?socket=-e/bin/sh',
    'nbd+ssh://host/?socket=~root/x',
    'nbd+ssh://host/?socket=/tmp/*',
    'nbd+ssh://host/?socket=%7Cid',
    'nbd+ssh://host/?socket=%3Eid',
    'nbd+ssh://host/?socket=/tmp/a%26id',
    'nbd+ssh://host/?socket=%00x',
    'nbd+ssh://host/?nbd-port=10809%3Bid',
    'nbd+ssh://host/?nbd-port=-1',
    'nbd+ssh://host/?nbd-port=1%20id',
    'nbd+ssh://host:0/',
    'nbd+ssh://host:65536/',
    'nbd+ssh://host:22x/',
    'nbd+ssh:///',
  ])('%s is EINVAL, and nothing is run', async (uri) => {
    const connection = new NbdConnection();
    const error = await rejection(connection.connectUri(uri));
    expect(error).toMatchObject({ name: 'NbdStrictError', code: 'EINVAL' });
    expect(connection.connectionState()).toBe('created');
    expect(await called()).toEqual([]);
  });

  it('is not used where URIs may not', async () => {
    const error = await rejection(NbdConnection.connect('nbd+ssh://host/', { uriAllowTransports: 7 }));
    expect(error).toMatchObject({ code: 'EPERM' });
    expect(await called()).toEqual([]);
  });

  it('is checked by the transport as well, whatever was checked before', () => {
    const good = { host: 'host', port: 22, user: 'alice', compress: false, remote: { socketPath: '/run/nbd' } };
    expect(sshCommand(good).at(-1)).toBe('/run/nbd');
    const bad = [
      { host: '-v' },
      { host: 'a b' },
      { host: '' },
      { host: 'a\nb' },
      { host: 'user@host' },
      { user: '-l' },
      { user: 'a$b' },
      { user: '' },
      { remote: { socketPath: '-x' } },
      { remote: { socketPath: '/tmp/a;id' } },
      { remote: { socketPath: '=ls' } },
      { remote: { socketPath: '/tmp/a\nid' } },
    ];
    for (const part of bad) expect(caught(() => sshCommand({ ...good, ...part }))).toMatchObject({ code: 'EINVAL' });
  });
});

describeWith(['openssl'], 'an nbds+ssh URI', () => {
  let certificates: Certificates;

  beforeAll(async () => {
    certificates = await makeCertificates();
  });

  afterAll(() => certificates.remove());

  it('is encrypted from end to end, and the certificate has the name of the ssh server', async () => {
    await using secure = new NbdServer({
      exports: { '': new MemoryBackend(1 << 20) },
      tls: 'require',
      tlsOptions: certificates.server,
    });
    const socket = join(folder, 'secure');
    await secure.listenUnix(socket);
    const connection = await NbdConnection.connect(`nbds+ssh://localhost/?socket=${socket}`, { ca: certificates.ca });
    expect(connection.getTls()).toBe(TLS_REQUIRE);
    expect(connection.getTlsNegotiated()).toBe(true);
    await connection.shutdown();
    const other = NbdConnection.connect(`nbds+ssh://example.com/?socket=${socket}`, { ca: certificates.ca });
    expect(await rejection(other)).toMatchObject({ code: 'EACCES', cause: { code: 'ERR_TLS_CERT_ALTNAME_INVALID' } });
  });
});

describe('vsock', () => {
  beforeEach(() => {
    process.env['NBD_SPEC_SOCKET'] = join(folder, 'socket');
    process.env['PATH'] = folder;
  });

  it.each(['nbd+vsock://', 'nbd+vsock://2:10809/', 'nbd+vsock:///'])('%s goes through socat', async (uri) => {
    await install('socat', process.execPath, RELAY);
    await install('ncat', process.execPath, RELAY);
    const connection = await NbdConnection.connect(uri);
    expect(connection.getSize()).toBe(BigInt(1 << 20));
    expect(await called()).toEqual(['-t', '60', '-', 'VSOCK-CONNECT:2:10809']);
    // The helper is not a server of the user.
    expect(caught(() => connection.getSubprocessPid())).toMatchObject({ code: 'ESRCH' });
    await connection.shutdown();
  });

  it('goes through ncat where there is no socat', async () => {
    await install('ncat', process.execPath, RELAY);
    const connection = new NbdConnection();
    await connection.connectVsock(3, 4_000_000_000);
    expect(await called()).toEqual(['--vsock', '3', '4000000000']);
    await connection.shutdown();
  });

  it('is ENOTSUP where there is neither', async () => {
    const connection = new NbdConnection();
    const error = await rejection(connection.connectVsock(2, 10809));
    expect(error).toMatchObject({ name: 'NbdConnectionError', code: 'ENOTSUP' });
    expect((error as Error).message).toMatch(/AF_VSOCK needs socat or ncat/);
  });

  it('is a target of connect, and has an aio form', async () => {
    await install('socat', process.execPath, RELAY);
    await using connection = await NbdConnection.connect({ cid: 1 });
    expect(connection.aioIsReady()).toBe(true);
    const second = new NbdConnection();
    const error = await new Promise<unknown>((resolve) => second.aioConnectVsock(1, 2, resolve));
    expect(error).toBeNull();
    await second.shutdown();
  });

  it.each([
    [-1, 1],
    [1.5, 1],
    [2 ** 32, 1],
    [1, -1],
    [1, 2 ** 32],
    [NaN, 1],
    ['2;id', 1],
    [2, '10809:x'],
    [null, 1],
    [2, undefined],
  ])('%j, %j is EINVAL, and nothing is run', async (cid, port) => {
    await install('socat', process.execPath, RELAY);
    const connection = new NbdConnection();
    const error = await rejection(connection.connectVsock(cid as number, port as number));
    expect(error).toMatchObject({ name: 'NbdStrictError', code: 'EINVAL', syscall: 'connectVsock' });
    expect(connection.connectionState()).toBe('created');
    expect(await called()).toEqual([]);
  });

  it('puts numbers and nothing else into the commands', () => {
    expect(vsockCommands(3, 5)).toEqual([
      ['socat', '-t', '60', '-', 'VSOCK-CONNECT:3:5'],
      ['ncat', '--vsock', '3', '5'],
    ]);
  });
});

describe('looking for a program', () => {
  it('goes along PATH, and passes over folders and what cannot be run', async () => {
    await writeFile(join(folder, 'plain'), '');
    process.env['PATH'] = `${join(folder, 'empty')}${delimiter}${folder}`;
    expect(await findProgram('nc')).toBe(join(folder, 'nc'));
    expect(await rejection(findProgram('plain'))).toMatchObject({ code: 'EACCES' });
    expect(await rejection(findProgram('nothing'))).toMatchObject({ code: 'ENOENT' });
    expect(await rejection(findProgram(folder))).toMatchObject({ code: 'ENOENT' });
  });
});
