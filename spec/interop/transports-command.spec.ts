// Servers that the connection runs by itself: nbdkit and nbd-server on stdin and stdout, nbdkit and qemu-nbd by socket
// activation.

import { afterAll, afterEach, beforeAll, describe, expect, it } from '@jest/globals';
import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { NbdConnection, type NbdConnectionOptions, TLS_REQUIRE } from '../../lib/index.js';
import { caught, rejection } from '../support/caught.js';
import { type Certificates, makeCertificates } from '../support/certificates.js';
import { describeWith, runTool } from '../support/real-servers.js';
import { isAlive, privateFolders } from '../support/transport-probe.js';

const SIZE = 1 << 20;

let folder: string;
let image: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'spec-'));
  image = join(folder, 'image');
  await writeFile(image, '');
  await truncate(image, SIZE);
});

afterAll(() => rm(folder, { recursive: true }));

type Form = 'connectCommand' | 'connectSystemdSocketActivation';

interface Kind {
  readonly title: string;
  readonly form: Form;
  /** The programs that it needs. */
  readonly needs: readonly string[];
  argv(): string[];
}

const KINDS: readonly Kind[] = [
  {
    title: 'nbdkit -s',
    form: 'connectCommand',
    needs: ['nbdkit'],
    argv: () => ['nbdkit', '-s', '--exit-with-parent', 'memory', String(SIZE)],
  },
  {
    title: 'nbd-server as inetd runs it',
    form: 'connectCommand',
    needs: ['nbd-server'],
    argv: () => ['nbd-server', '-d', '-C', '/dev/null', '0', image],
  },
  {
    title: 'nbdkit by socket activation',
    form: 'connectSystemdSocketActivation',
    needs: ['nbdkit'],
    argv: () => ['nbdkit', '--exit-with-parent', 'memory', String(SIZE)],
  },
  {
    title: 'qemu-nbd by socket activation',
    form: 'connectSystemdSocketActivation',
    needs: ['qemu-nbd'],
    argv: () => ['qemu-nbd', '--format=raw', '--persistent', '--shared=4', image],
  },
];

const connections = new Set<NbdConnection>();

/** A connection that is closed when the test is over, however that ends. */
function make(options?: NbdConnectionOptions): NbdConnection {
  const connection = new NbdConnection(options);
  connections.add(connection);
  return connection;
}

afterEach(async () => {
  for (const connection of connections) connection.close();
  await Promise.all([...connections].map((connection) => connection.shutdown()));
  connections.clear();
});

async function open(kind: Kind): Promise<NbdConnection> {
  const connection = make();
  await connection[kind.form](kind.argv());
  return connection;
}

async function gone(pid: number): Promise<boolean> {
  for (let i = 0; i < 10_000 && isAlive(pid); i++) await sleep(20);
  return !isAlive(pid);
}

/** Resolves when the connection's program runs. */
async function started(connection: NbdConnection): Promise<void> {
  for (;;) {
    try {
      connection.getSubprocessPid();
      return;
    } catch {
      await sleep(5);
    }
  }
}

/** Resolves when a SIGSTOP has done its work: all threads of the process stand. */
async function stopped(pid: number): Promise<void> {
  const states = (): string[] =>
    readdirSync(`/proc/${pid}/task`).map((task) => readFileSync(`/proc/${pid}/task/${task}/stat`, 'utf8'));
  if (!existsSync('/proc/self/task')) await sleep(200);
  else while (!states().every((text) => text.includes(') T'))) await sleep(5);
}

/**
 * Resolves when the connection's program is there no more; a program that outlives it fails the test by its timeout.
 */
async function withoutProgram(connection: NbdConnection): Promise<void> {
  for (;;) {
    try {
      connection.getSubprocessPid();
    } catch (error) {
      expect(error).toMatchObject({ code: 'ESRCH' });
      return;
    }
    await sleep(10);
  }
}

describe.each(KINDS)('$title', (kind) => {
  describeWith(kind.needs, 'a server of our own', () => {
    it('serves', async () => {
      await using connection = await open(kind);
      expect(connection.getSize()).toBe(BigInt(SIZE));
      const data = randomBytes(SIZE / 2);
      await connection.pwrite(data, 4096);
      if (connection.canFlush()) await connection.flush();
      const parts = await Promise.all(Array.from({ length: 128 }, (_, i) => connection.pread(4096, 4096 + i * 4096)));
      expect(Buffer.concat(parts).equals(data)).toBe(true);
    });

    it('is a process whose pid is available and which is gone after shutdown', async () => {
      const connection = await open(kind);
      const pid = connection.getSubprocessPid();
      expect(isAlive(pid)).toBe(true);
      await connection.shutdown();
      expect(isAlive(pid)).toBe(false);
      expect(caught(() => connection.getSubprocessPid())).toMatchObject({ code: 'ESRCH' });
      expect(connection.connectionState()).toBe('closed');
      expect(privateFolders()).toEqual([]);
    });

    it('is gone soon after close', async () => {
      const connection = await open(kind);
      const pid = connection.getSubprocessPid();
      connection.close();
      expect(await gone(pid)).toBe(true);
      expect(privateFolders()).toEqual([]);
    });

    it('is gone when close has been called and shutdown awaited', async () => {
      const connection = await open(kind);
      const pid = connection.getSubprocessPid();
      connection.close();
      await connection.shutdown();
      expect(isAlive(pid)).toBe(false);
    });

    it.each(['SIGKILL', 9] as const)('can be killed (%s), which ends the connection', async (signal) => {
      const connection = await open(kind);
      const pid = connection.getSubprocessPid();
      const closed = new Promise<unknown>((resolve) => connection.on('close', resolve));
      connection.killSubprocess(signal);
      const error = await closed;
      expect(await gone(pid)).toBe(true);
      expect(caught(() => connection.killSubprocess())).toMatchObject({ code: 'ESRCH', name: 'NbdStrictError' });
      expect(error).toMatchObject({ name: 'NbdConnectionError', code: 'ENOTCONN' });
      expect((error as Error).message).toMatch(/ was ended by SIGKILL/);
      expect(connection.connectionState()).toBe('dead');
      expect(await rejection(connection.pread(512, 0))).toMatchObject({ name: 'NbdStateError' });
    });

    it('takes its commands along when it dies', async () => {
      const connection = await open(kind);
      connection.killSubprocess('SIGSTOP');
      await stopped(connection.getSubprocessPid());
      const reads = [0, 4096, 8192].map((offset) => rejection(connection.pread(4096, offset)));
      await sleep(20);
      connection.killSubprocess('SIGKILL');
      for (const error of await Promise.all(reads)) {
        expect(error).toMatchObject({ name: 'NbdConnectionError', code: 'ENOTCONN' });
        expect((error as Error).message).toMatch(/the command .* was ended by SIGKILL/);
      }
    });

    it('does not outlive a connect that failed', async () => {
      const connection = make({ connectTimeout: 1, closeTimeout: 200 });
      const error = await rejection(connection[kind.form](kind.argv()));
      expect(error).toMatchObject({ code: 'ETIMEDOUT' });
      await connection.shutdown();
      expect(caught(() => connection.getSubprocessPid())).toMatchObject({ code: 'ESRCH' });
      await sleep(100);
      expect(privateFolders()).toEqual([]);
    });

    it('does not outlive an abort, at whatever moment', async () => {
      for (const delay of [0, 1, 2, 5, 10, 20]) {
        const controller = new AbortController();
        const reason = new Error('enough');
        setTimeout(() => controller.abort(reason), delay);
        const connection = make({ closeTimeout: 400 });
        const outcome = await connection[kind.form](kind.argv(), controller.signal).then(
          () => undefined,
          (error: unknown) => error,
        );
        expect([undefined, reason]).toContain(outcome);
        await connection.shutdown();
        // One that is slow to notice its end is ended by a signal, two closeTimeouts later at the latest.
        await withoutProgram(connection);
      }
      await sleep(100);
      expect(privateFolders()).toEqual([]);
    });

    it('is begun without waiting by the aio form', async () => {
      const connection = make();
      const name = kind.form === 'connectCommand' ? 'aioConnectCommand' : 'aioConnectSystemdSocketActivation';
      const error = await new Promise<unknown>((resolve) => {
        connection[name](kind.argv(), resolve);
        expect(connection.aioIsConnecting()).toBe(true);
      });
      expect(error).toBeNull();
      expect(connection.aioIsReady()).toBe(true);
      await connection.shutdown();
    });
  });
});

describe('an invalid command', () => {
  const forms = ['connectCommand', 'connectSystemdSocketActivation', 'aioConnectCommand'] as const;

  it.each(forms)('%s refuses, and nothing has happened', async (form) => {
    const cases: [unknown, string][] = [
      [undefined, 'EFAULT'],
      [null, 'EFAULT'],
      [[], 'EINVAL'],
      [[''], 'EINVAL'],
      ['nbdkit -s', 'EINVAL'],
      [['nbdkit', 1], 'EINVAL'],
      [['nbdkit', 'a\0b'], 'EINVAL'],
      [{ 0: 'nbdkit', length: 1 }, 'EINVAL'],
    ];
    for (const [argv, code] of cases) {
      const connection = make();
      const error = await rejection((async () => connection[form](argv as string[]))());
      expect(error).toMatchObject({ name: 'NbdStrictError', code, syscall: form });
      expect(connection.connectionState()).toBe('created');
    }
  });

  it.each(['connectCommand', 'connectSystemdSocketActivation'] as const)(
    '%s: a program that is not there',
    async (form) => {
      const connection = make();
      const error = await rejection(connection[form](['no-such-program-here']));
      expect(error).toMatchObject({ name: 'NbdConnectionError', code: 'ENOENT' });
      expect((error as Error).message).toMatch(/^connect to the command no-such-program-here: program not found: /);
      expect(connection.connectionState()).toBe('dead');
    },
  );

  it.each(['connectCommand', 'connectSystemdSocketActivation'] as const)(
    '%s: one that dies is reported with the reason',
    async (form) => {
      const connection = make();
      const argv = ['/bin/sh', '-c', 'echo it: no such disk >&2; exit 3'];
      const error = await rejection(connection[form](argv));
      expect(error).toMatchObject({ name: 'NbdConnectionError', code: 'ENOTCONN' });
      expect((error as Error).message).toBe(
        'connect to the command sh: the command sh exited with status 3: it: no such disk',
      );
    },
  );

  it('has no subprocess before or without one', async () => {
    const connection = make();
    for (const call of [() => connection.getSubprocessPid(), () => connection.killSubprocess()]) {
      expect(caught(call)).toMatchObject({ name: 'NbdStrictError', code: 'ESRCH' });
    }
  });

  it.each([0, 15, 'SIGTERM', undefined] as const)('is ended by SIGTERM (%s)', async (signal) => {
    const connection = make();
    const connecting = rejection(connection.connectCommand(['sleep', '30']));
    await started(connection);
    connection.killSubprocess(signal);
    expect(((await connecting) as Error).message).toMatch(/was ended by SIGTERM/);
  });

  it('refuses what is not a signal, and sends nothing', async () => {
    const connection = make();
    const connecting = rejection(connection.connectCommand(['sleep', '30']));
    await started(connection);
    for (const signal of [-1, 1.5, 1000, 'SIGNOTHING', 'sigterm', {}, null, NaN, '']) {
      expect(caught(() => connection.killSubprocess(signal as number))).toMatchObject({ code: 'EINVAL' });
    }
    expect(isAlive(connection.getSubprocessPid())).toBe(true);
    connection.killSubprocess('SIGTERM');
    expect(((await connecting) as Error).message).toMatch(/was ended by SIGTERM/);
  });
});

describeWith(['nbdkit', 'nbdinfo'], 'a socket that was activated', () => {
  it('can be used by others, at the address of getUri, while the connection lasts', async () => {
    const connection = make();
    await connection.connectSystemdSocketActivation(['nbdkit', '--exit-with-parent', 'memory', '1M']);
    const uri = connection.getUri();
    expect(uri).toMatch(/^nbd\+unix:\/\/\/\?socket=.*\/socket$/);
    const path = decodeURIComponent(uri.slice(uri.indexOf('=') + 1));
    expect((await runTool('nbdinfo', ['--size', uri])).stdout).toBe('1048576\n');
    await using second = await NbdConnection.connect(uri);
    expect(second.getSize()).toBe(connection.getSize());
    await second.shutdown();
    await connection.shutdown();
    expect(existsSync(dirname(path))).toBe(false);
  });

  it('receives its name', async () => {
    const connection = make({ socketActivationName: 'disk1' });
    expect(connection.getSocketActivationName()).toBe('disk1');
    const argv = ['/bin/sh', '-c', 'echo "$LISTEN_FDNAMES:$LISTEN_FDS:$((LISTEN_PID - $$))" >&2; exit 1'];
    const error = await rejection(connection.connectSystemdSocketActivation(argv));
    expect((error as Error).message).toMatch(/: disk1:1:0$/);
  });
});

describe('the name of an activated socket', () => {
  it.each([
    ['', undefined],
    ['disk1', undefined],
    ['x'.repeat(32), undefined],
    ['x'.repeat(33), 'ENAMETOOLONG'],
    ['a b', 'EINVAL'],
    ['a:b', 'EINVAL'],
    ['é', 'EINVAL'],
    ['a_b', 'EINVAL'],
    [1, 'EINVAL'],
    [null, 'EINVAL'],
  ])('%j', (name, code) => {
    const connection = new NbdConnection({ socketActivationName: 'before' });
    if (code === undefined) {
      connection.setSocketActivationName(name);
      expect(connection.getSocketActivationName()).toBe(name);
    } else {
      expect(caught(() => connection.setSocketActivationName(name as string))).toMatchObject({ code });
      expect(connection.getSocketActivationName()).toBe('before');
    }
  });
});

describeWith(['nbdkit', 'openssl'], 'TLS with a server of our own', () => {
  let certificates: Certificates;

  beforeAll(async () => {
    certificates = await makeCertificates();
  });

  afterAll(() => certificates.remove());

  const argv = (...args: string[]): string[] => ['nbdkit', '-s', '--tls=require', ...args, 'memory', '1M'];

  it('is possible, with certificates and with keys', async () => {
    const first = make({ tls: TLS_REQUIRE, ca: certificates.ca, tlsHostname: 'localhost' });
    await first.connectCommand(argv(`--tls-certificates=${certificates.folder}`));
    expect(first.getTlsNegotiated()).toBe(true);
    await first.pread(512, 0);
    await first.shutdown();
    const second = make({ tls: TLS_REQUIRE, tlsPskFile: certificates.pskFile, tlsUsername: 'alice' });
    await second.connectCommand(argv(`--tls-psk=${certificates.pskFile}`));
    await second.shutdown();
  });

  it('reports what went wrong, with the message of the server', async () => {
    const connection = make({ tls: TLS_REQUIRE, tlsPsk: { identity: 'alice', key: '00' } });
    const error = await rejection(connection.connectCommand(argv(`--tls-psk=${certificates.pskFile}`)));
    expect(error).toMatchObject({ name: 'NbdConnectionError', code: 'EACCES' });
    expect((error as Error).message).toMatch(/did not accept the pre-shared key of user "alice" .*gnutls_handshake/);
  });

  it('reports what the client refused, whatever the server prints about that', async () => {
    const connection = make({ tls: TLS_REQUIRE, ca: certificates.ca, tlsHostname: 'elsewhere.example' });
    const error = await rejection(connection.connectCommand(argv(`--tls-certificates=${certificates.folder}`)));
    expect((error as Error).message).toMatch(/elsewhere\.example\.; it is for DNS:localhost/);
  });
});
