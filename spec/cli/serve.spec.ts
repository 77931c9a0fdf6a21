// `nbd serve` as a daemon and as a child of others: how it starts, what it refuses, how it ends, and what other clients
// make of it.

import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, open, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { NbdConnection } from '../../lib/index.js';
import { makeCertificates, revocationList } from '../support/certificates.js';
import { describeWith, runLibnbd, runTool } from '../support/real-servers.js';
import { until } from '../support/waiting.js';
import { A_URI, cliPath, exitOf, nbd, printed, start, type Started } from './support.js';

let folder: string;
const running: ChildProcess[] = [];
const at = (name: string): string => join(folder, name);

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-serve-'));
});
afterEach(async () => {
  for (const child of running.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    const ended = exitOf(child);
    child.kill('SIGKILL');
    await ended;
  }
  await rm(folder, { recursive: true, force: true });
});

/** Starts it and waits for its URIs. */
async function serve(...words: string[]): Promise<Started> {
  const child = await start(['serve', ...words]);
  running.push(child);
  await printed(child, A_URI);
  return child;
}

const uriOf = (name = 's', exportName = ''): string => `nbd+unix:///${exportName}?socket=${at(name)}`;

async function sizeOf(uri: string): Promise<bigint> {
  // A socket is there before it listens.
  await using connection = await NbdConnection.connect(uri, { waitFor: 60_000 });
  return connection.getSize();
}

describe('the end of nbd serve', () => {
  it.each(['SIGTERM', 'SIGINT'] as const)('by %s is not a failure, and leaves no socket', async (signal) => {
    const child = await serve('-m1M', '--unix', at('s'));
    expect(await sizeOf(uriOf())).toBe(1048576n);
    const ended = exitOf(child);
    child.kill(signal);
    expect(await ended).toBe(0);
    expect(existsSync(at('s'))).toBe(false);
    expect(child.err()).toBe('');
  });

  it('comes with the end of its parent when asked to', async () => {
    const script = '"$0" "$1" serve -m1M --exit-with-parent --unix "$2" >/dev/null & read line';
    const parent = spawn('/bin/sh', ['-c', script, process.execPath, await cliPath(), at('s')], {
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    running.push(parent);
    await until(() => existsSync(at('s')));
    expect(await sizeOf(uriOf())).toBe(1048576n);
    parent.kill('SIGKILL');
    await until(() => !existsSync(at('s')));
  });
});

describe('the Unix socket', () => {
  it('of a server that was killed is taken over, that of a living one is not touched', async () => {
    const first = await serve('-m1M', '--unix', at('s'));
    const second = await nbd(['serve', '-m2M', '--unix', at('s')]);
    expect(second).toMatchObject({ code: 1, stdout: '' });
    expect(second.stderr).toMatch(/the address is already in use/);
    expect(await sizeOf(uriOf())).toBe(1048576n);

    const killed = exitOf(first);
    first.kill('SIGKILL');
    await killed;
    expect(existsSync(at('s'))).toBe(true);
    await serve('-m3M', '--unix', at('s'));
    expect(await sizeOf(uriOf())).toBe(3145728n);
  });

  it('is not made over a file', async () => {
    await writeFile(at('s'), 'precious');
    expect(await nbd(['serve', '-m1M', '--unix', at('s')])).toMatchObject({ code: 1, stdout: '' });
    expect(await readFile(at('s'), 'utf8')).toBe('precious');
  });

  it('is refused where its path does not fit', async () => {
    const long = at('x'.repeat(120));
    const { code, stderr } = await nbd(['serve', '-m1M', '--unix', long]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/limited to 107 bytes/);
    expect(existsSync(long.slice(0, 107))).toBe(false);
  });
});

describe('what nbd serve refuses', () => {
  it.each<[string[], RegExp]>([
    [['--tls-verify-peer', '-m1M'], /--tls-verify-peer requires --tls-certificates/],
    [['--tls-optional', '-m1M'], /--tls-optional requires --tls-certificates or --tls-psk/],
    [['--tls-psk=x', '--tls-verify-peer', '-m1M'], /you cannot use --tls-psk and --tls-verify-peer together/],
    [['--tls-certificates=', '-m1M'], /--tls-certificates: the value is empty/],
    [['--host', '', '-m1M'], /--host: the value is empty/],
    [['--unix', '', '-m1M'], /--unix: the value is empty/],
    [['--unix=x', '--port=0', '-m1M'], /you cannot use --unix and --port together/],
    [['--single', '--port=0', '-m1M'], /you cannot use --single and --port together/],
    [['-s', '--run', 'true', '-m1M'], /you cannot use --single and --run together/],
    [['--max-connections=0', '-m1M'], /--max-connections: could not parse: 0/],
    [['--port=65536', '-m1M'], /the port must be from 0 to 65535/],
    [['.'], /\.: is a directory, not a file or block device/],
    [['/dev/null'], /\/dev\/null: is a device, not a file or block device/],
    [['/dev/zero'], /is a device/],
  ])('%j', async (words, message) => {
    const { code, stdout, stderr } = await nbd(['serve', ...words]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(message);
  });

  it('a FIFO, without waiting for its other end', async () => {
    await runTool('mkfifo', [at('fifo')]);
    const { code, stderr } = await nbd(['serve', '-r', at('fifo')]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/is a FIFO/);
  });

  it('more clients than it may have', async () => {
    await serve('-m1M', '--max-connections=1', '--unix', at('s'));
    await using first = await NbdConnection.connect(uriOf());
    await expect(NbdConnection.connect(uriOf())).rejects.toMatchObject({ name: 'NbdConnectionError' });
    expect(first.getSize()).toBe(1048576n);
  });
});

describe('nbd serve --run', () => {
  it.each([
    ['exit 0', 0],
    ['exit 7', 7],
    ['kill -9 $$', 137],
  ])('ends with the status of %j', async (command, expected) => {
    expect(await nbd(['serve', '-m1M', '--run', command])).toMatchObject({ code: expected, stdout: '', stderr: '' });
  });

  it('passes the address of the server to the command, as nbdkit does', async () => {
    const show = 'printf "%s\\n" "$uri" "$unixsocket" "$exportname" "$port" "$nbd"; test -S "$unixsocket"';
    const unix = await nbd(['serve', '-m', "it's=1M", '--run', show]);
    expect(unix).toMatchObject({ code: 0, stderr: '' });
    const [uri, path = '', name, port, old] = unix.stdout.split('\n');
    expect([uri, name, port, old]).toEqual([
      `nbd+unix:///it's?socket=${encodeURIComponent(path)}`,
      "it's",
      '',
      `nbd:unix:${path}`,
    ]);
    expect(existsSync(path)).toBe(false);
    const tcp = await nbd(['serve', '-m1M', '--port=0', '--run', 'echo "$uri $port [$unixsocket]"']);
    expect(tcp.stdout).toMatch(/^nbd:\/\/127\.0\.0\.1:(\d+)\/ \1 \[\]\n$/);
  });

  it('serves the command', async () => {
    const info = `"${process.execPath}" "${await cliPath()}" info --size "$uri"`;
    expect(await nbd(['serve', '-m1M', '--run', info])).toMatchObject({ code: 0, stdout: '1048576\n' });
  });
});

describe('nbd serve --single', () => {
  it('is what connectCommand starts', async () => {
    await writeFile(at('disk'), Buffer.alloc(4096, 7));
    const connection = new NbdConnection();
    await connection.connectCommand([process.execPath, await cliPath(), 'serve', '-s', at('disk')]);
    expect((await connection.pread(4096, 0)).equals(Buffer.alloc(4096, 7))).toBe(true);
    await connection.pwrite(Buffer.alloc(512, 8), 512);
    await connection.flush();
    await connection.shutdown();
    expect((await readFile(at('disk')))[512]).toBe(8);
  });

  it('speaks on two pipes, and ends with its input', async () => {
    const script =
      'printf "\\0\\0\\0\\3" | { "$0" "$1" serve -s -m1M; echo "status $?" >&2; } | od -An -c -N18; exit 0';
    const { stdout, stderr } = await runTool('/bin/sh', ['-c', script, process.execPath, await cliPath()]);
    expect(stdout.replaceAll(/\s/g, '')).toBe('NBDMAGICIHAVEOPT\\0003');
    expect(stderr).toBe('status 0\n');
    // Both are sockets that the other side has closed.
    expect(await nbd(['serve', '-s', '-m1M'])).toMatchObject({ code: 0, stderr: '' });
  });

  it('refuses to speak to a file', async () => {
    const words = ['-c', '"$0" "$1" serve -s -m1M </dev/null', process.execPath, await cliPath()];
    const { code, stdout, stderr } = await runTool('/bin/sh', words);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(/standard input and output must be a client/);
  });
});

describeWith(['python3-libnbd'], 'nbd serve for libnbd', () => {
  it('is started both ways, and ends well', async () => {
    const script = `
import nbd, sys
node, main = sys.argv[1:3]
h = nbd.NBD()
h.connect_command([node, main, "serve", "--single", "-m", "1M"])
h.pwrite(b"x" * 512, 512)
assert h.pread(1024, 0) == b"\\0" * 512 + b"x" * 512
h.shutdown()
h = nbd.NBD()
h.connect_systemd_socket_activation([node, main, "serve", "-m", "2M"])
print(h.get_size())
h.shutdown()
`;
    await writeFile(at('script.py'), script);
    const main = await cliPath();
    const words = [process.execPath, main].map((word) => JSON.stringify(word)).join(', ');
    const { code, stdout, stderr } = await runLibnbd(`import sys\nsys.argv = ["", ${words}]\n${script}`);
    expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: '2097152\n', stderr: '' });
  });
});

describeWith(['nbdinfo', 'nbdcopy'], 'nbd serve of a sparse file', () => {
  const MIB = 1 << 20;
  const sparse = async (name: string): Promise<string> => {
    await writeFile(at(name), '');
    await truncate(at(name), 64 * MIB);
    const handle = await open(at(name), 'r+');
    await handle.write(Buffer.alloc(2 * MIB, 7), 0, 2 * MIB, 20 * MIB);
    await handle.close();
    return at(name);
  };
  const allocated = async (name: string): Promise<number> => (await stat(at(name))).blocks * 512;

  it('shows holes as holes, and a copy of it takes no more room', async () => {
    await sparse('a');
    await writeFile(at('b'), '');
    await truncate(at('b'), 64 * MIB);
    await serve(`a=${at('a')}`, `b=${at('b')}`, '--unix', at('s'));
    const { stdout } = await runTool('nbdinfo', ['--map', '--totals', uriOf('s', 'a')]);
    expect(stdout).toMatch(/^\s*2097152 +3\.1% +0 data\n\s*65011712 +96\.9% +[23] (hole,)?zero\n$/);
    expect(await runTool('nbdcopy', [uriOf('s', 'a'), uriOf('s', 'b')])).toMatchObject({ code: 0 });
    expect((await readFile(at('b'))).equals(await readFile(at('a')))).toBe(true);
    expect(await allocated('b')).toBeLessThan(8 * MIB);
  });

  it('under two names shows what was written under the other one', async () => {
    await sparse('disk');
    await serve(`a=${at('disk')}`, `b=${at('disk')}`, '--unix', at('s'));
    const [a, b] = await Promise.all(
      ['a', 'b'].map((name) => NbdConnection.connect(uriOf('s', name), { metaContexts: ['base:allocation'] })),
    );
    if (a === undefined || b === undefined) throw new Error('no connections');
    const isZero = async (connection: NbdConnection): Promise<boolean> => {
      const map = await connection.blockStatus(MIB, 20 * MIB);
      return [...(map.get('base:allocation') ?? [])].every(({ flags }) => (flags & 2) !== 0);
    };
    await a.zero(MIB, 20 * MIB);
    expect(await isZero(a)).toBe(true);
    await b.pwrite(Buffer.alloc(MIB, 5), 20 * MIB);
    expect(await isZero(a)).toBe(false);
    await a.zero(MIB, 20 * MIB);
    expect((await b.pread(MIB, 20 * MIB)).equals(Buffer.alloc(MIB))).toBe(true);
    await Promise.all([a.shutdown(), b.shutdown()]);
  });
});

describeWith(['nbdinfo', 'openssl'], 'nbd serve --tls-verify-peer', () => {
  it('refuses a client whose certificate ca-crl.pem revokes', async () => {
    await using pki = await makeCertificates();
    const ask = (): Promise<{ code: number | null; stdout: string }> =>
      runTool('nbdinfo', [
        '--size',
        `${uriOf('s').replace('nbd', 'nbds')}&tls-certificates=${pki.folder}&tls-hostname=localhost`,
      ]);
    for (const [revoked, expected] of [
      [[], '1048576\n'],
      [[pki.client.cert], ''],
    ] as const) {
      await writeFile(join(pki.folder, 'ca-crl.pem'), await revocationList(pki.folder, revoked));
      const child = await serve('-m1M', '--unix', at('s'), `--tls-certificates=${pki.folder}`, '--tls-verify-peer');
      expect((await ask()).stdout).toBe(expected);
      const ended = exitOf(child);
      child.kill('SIGTERM');
      expect(await ended).toBe(0);
    }
  });
});

describeWith(['nbdcopy', 'python3-libnbd'], 'nbd serve for tests of other clients', () => {
  const MIB = 1024 * 1024;

  it('keeps what nbdcopy writes in memory with --overlay, at the pace of --rate', async () => {
    const before = Buffer.alloc(4 * MIB, 1);
    await writeFile(at('disk'), before);
    await writeFile(at('new'), Buffer.alloc(4 * MIB, 2));
    await serve(at('disk'), '--overlay', '--rate=8M', '--unix', at('s'));
    const begun = performance.now();
    expect(await runTool('nbdcopy', [at('new'), uriOf()])).toMatchObject({ code: 0 });
    expect(performance.now() - begun).toBeGreaterThan(300);
    expect(await runTool('nbdcopy', [uriOf(), at('back')])).toMatchObject({ code: 0 });
    expect((await readFile(at('back'))).equals(Buffer.alloc(4 * MIB, 2))).toBe(true);
    expect((await readFile(at('disk'))).equals(before)).toBe(true);
  });

  it('fails the requests that follow from --error-rate and --seed', async () => {
    const failing = async (name: string, seed: string): Promise<string> => {
      await serve('-m1M', '--error-rate=20%', `--seed=${seed}`, '--unix', at(name));
      const lines = [
        'import nbd',
        'h = nbd.NBD()',
        'h.set_uri_allow_local_file(True)',
        `h.connect_uri("${uriOf(name)}")`,
        'failed = []',
        'for i in range(100):',
        '  try: h.pread(512, 0)',
        '  except nbd.Error as e: failed.append(i) if e.errno == "EIO" else print(e)',
        'print(failed)',
      ];
      return (await runLibnbd(lines.join('\n'))).stdout;
    };
    const first = await failing('a', '1');
    expect((JSON.parse(first) as number[]).length).toBeGreaterThan(5);
    expect((JSON.parse(first) as number[]).length).toBeLessThan(50);
    expect(await failing('b', '1')).toBe(first);
    expect(await failing('c', '2')).not.toBe(first);
  });

  it.each([
    [['--seed=1'], /--seed requires --error-rate/],
    [['--error-rate=101'], /--error-rate: must be a percentage from 0 to 100, not "101"/],
    [['--rate=0'], /--rate: must be at least 1 byte per second/],
    [['--overlay', '--read-only'], /--overlay/],
  ])('refuses %p', async (words, message) => {
    expect(await nbd(['serve', '-m1M', '--unix', at('s'), ...words])).toMatchObject({
      ...{ code: 1, stderr: expect.stringMatching(message) },
    });
  });
});
