// How a program that a connection has started ends: one that may hold data has all the time that it needs, its exit
// status counts, and only an abort or a signal of the user's ends it sooner.

import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';

import { NbdConnection, type NbdConnectionOptions } from '../../../lib/index.js';
import { rejection } from '../../support/caught.js';
import { describeWith } from '../../support/real-servers.js';
import { isAlive, privateFolders } from '../../support/transport-probe.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'spec-'));
});
afterAll(() => rm(folder, { recursive: true }));

let count = 0;

/** A server that, once its client has left, takes its time and then does `last`; `done` exists when it could. */
interface Slow {
  readonly done: string;
  readonly argv: string[];
}

type Form = 'command' | 'activation';

function slow(form: Form, last: string, delay = 0.4): Slow {
  const done = join(folder, `done-${++count}`);
  const end = `sleep ${delay}; : > ${done}; ${last}`;
  const script =
    form === 'command'
      ? `nbdkit -s memory 1M; ${end}`
      : `trap 'kill $server; wait $server; ${end}' TERM
         sh -c 'LISTEN_PID=$$; export LISTEN_PID; exec "$@"' sh nbdkit -f memory 1M & server=$!
         wait $server`;
  return { done, argv: ['/bin/sh', '-c', script] };
}

async function open(form: Form, argv: readonly string[], options: NbdConnectionOptions = {}): Promise<NbdConnection> {
  const connection = new NbdConnection(options);
  if (form === 'command') await connection.connectCommand(argv);
  else await connection.connectSystemdSocketActivation(argv);
  return connection;
}

const FORMS = ['command', 'activation'] as const;

const WRITES: Readonly<Record<string, (connection: NbdConnection) => Promise<void>>> = {
  pwrite: (connection) => connection.pwrite(Buffer.alloc(512, 1), 0),
  zero: (connection) => connection.zero(512, 0),
  trim: (connection) => connection.trim(512, 0),
};

describeWith(['nbdkit'], 'a server that was started, and written to', () => {
  const cases = FORMS.flatMap((form) => [0, 20].map((closeTimeout) => ({ form, closeTimeout })));

  it.each(cases)('is waited for ($form, closeTimeout $closeTimeout)', async ({ form, closeTimeout }) => {
    const { done, argv } = slow(form, 'exit 0');
    const connection = await open(form, argv, { closeTimeout });
    const pid = connection.getSubprocessPid();
    await WRITES['pwrite']?.(connection);
    await connection.shutdown();
    expect({ done: existsSync(done), alive: isAlive(pid) }).toEqual({ done: true, alive: false });
    expect(privateFolders()).toEqual([]);
  });

  it.each(FORMS)('is not killed after close() either (%s)', async (form) => {
    const { done, argv } = slow(form, 'exit 0');
    const connection = await open(form, argv, { closeTimeout: 20 });
    await WRITES['pwrite']?.(connection);
    connection.close();
    await connection.shutdown();
    expect(existsSync(done)).toBe(true);
  });

  it.each(FORMS.flatMap((form) => Object.keys(WRITES).map((write) => ({ form, write }))))(
    'has failed when it exits with a status ($form, $write)',
    async ({ form, write }) => {
      const connection = await open(form, slow(form, 'echo it: disk full >&2; exit 3', 0.01).argv);
      await WRITES[write]?.(connection);
      expect(await rejection(connection.shutdown())).toMatchObject({
        name: 'NbdConnectionError',
        code: 'EIO',
        syscall: 'shutdown',
        message: expect.stringMatching(
          /^shutdown: the command sh exited with status 3: .*it: disk full; what was written to it may be lost$/,
        ) as unknown as string,
      });
      expect(connection.connectionState()).toBe('closed');
      expect(await rejection(connection.shutdown())).toMatchObject({ code: 'EIO' });
    },
  );

  it.each(FORMS)('has failed when a signal ends it that is not ours (%s)', async (form) => {
    const connection = await open(form, slow(form, 'kill -SEGV $$', 0.01).argv);
    await WRITES['pwrite']?.(connection);
    expect(((await rejection(connection.shutdown())) as Error).message).toMatch(/was ended by SIGSEGV/);
  });

  it.each(FORMS)('has failed for await using, too (%s)', async (form) => {
    const argv = slow(form, 'exit 9', 0.01).argv;
    const run = async (): Promise<void> => {
      await using connection = await open(form, argv);
      await WRITES['pwrite']?.(connection);
    };
    expect(await rejection(run())).toMatchObject({ code: 'EIO' });
  });

  it('may end by the signal that it was sent, or with the status that a shell makes of it', async () => {
    for (const last of ['exit 143', 'trap - TERM; kill -TERM $$']) {
      const connection = await open('activation', slow('activation', last, 0.01).argv);
      await WRITES['pwrite']?.(connection);
      await connection.shutdown();
    }
  });

  it.each(FORMS)('is ended by killSubprocess, which does not count as a failure (%s)', async (form) => {
    const { done, argv } = slow(form, 'exit 0', 30);
    const connection = await open(form, argv, { closeTimeout: 0 });
    const pid = connection.getSubprocessPid();
    await WRITES['pwrite']?.(connection);
    connection.close();
    const ended = connection.shutdown();
    await sleep(50);
    connection.killSubprocess('SIGKILL');
    await ended;
    expect({ done: existsSync(done), alive: isAlive(pid) }).toEqual({ done: false, alive: false });
  });

  it.each(FORMS)('is ended by the abort of a shutdown (%s)', async (form) => {
    const connection = await open(form, slow(form, 'exit 0', 30).argv);
    const pid = connection.getSubprocessPid();
    await WRITES['pwrite']?.(connection);
    const controller = new AbortController();
    const ended = rejection(connection.shutdown(0, controller.signal));
    await sleep(50);
    const reason = new Error('enough');
    controller.abort(reason);
    expect(await ended).toBe(reason);
    while (isAlive(pid)) await sleep(10);
    expect(privateFolders()).toEqual([]);
    expect(await rejection(connection.shutdown(0, AbortSignal.abort(reason)))).toBe(reason);
  });

  it('is a failure once: where commands have failed for it, shutdown resolves', async () => {
    const argv = ['nbdkit', '-s', '--filter=delay', 'memory', '1M', 'rdelay=60'];
    const connection = await open('command', argv);
    await WRITES['pwrite']?.(connection);
    const read = rejection(connection.pread(512, 0));
    process.kill(connection.getSubprocessPid(), 'SIGKILL');
    expect(((await read) as Error).message).toMatch(/the command nbdkit was ended by SIGKILL/);
    await connection.shutdown();
  });
});

describeWith(['nbdkit'], 'a server that was started, and only read', () => {
  it('is ended by force when it does not end, and its status is its own business', async () => {
    for (const last of ['exit 3', 'trap "" TERM; while :; do sleep 1; done']) {
      const connection = await open('command', slow('command', last, 0.01).argv, { closeTimeout: 500 });
      const pid = connection.getSubprocessPid();
      await connection.pread(512, 0);
      await connection.shutdown();
      while (isAlive(pid)) await sleep(10);
    }
  });
});

describe('shutdown', () => {
  it('refuses an unknown flag before it ends anything', async () => {
    const connection = new NbdConnection();
    expect(await rejection(connection.shutdown(4))).toMatchObject({ code: 'EINVAL' });
    expect(connection.connectionState()).toBe('created');
  });
});
