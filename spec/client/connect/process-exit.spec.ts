import { spawn } from 'node:child_process';

import { beforeAll, beforeEach, describe, expect, it } from '@jest/globals';

import { bundled } from '../../support/bundled.js';
import * as g from '../../support/golden.js';
import { listenRaw, type RawPeer } from '../../support/raw-server.js';

let program = '';
beforeAll(async () => {
  program = (await bundled(['spec/client/connect/programs/leave-nothing.ts']))('leave-nothing');
});

/** Plays the server that the export name describes. */
async function serve(peer: RawPeer): Promise<void> {
  // The behaviour is chosen by the name in GO. A client that is to get no greeting never sends it.
  peer.write(g.greeting());
  await peer.take(4);
  let name: string;
  for (;;) {
    const { number, data } = await peer.option();
    if (number === g.OPT.STRUCTURED_REPLY) {
      peer.write(g.reply(number, g.ACK));
      continue;
    }
    if (number !== g.OPT.GO) {
      peer.write(g.reply(number, g.ERR_UNSUP));
      continue;
    }
    name = data.toString('latin1', 4, 4 + data.readUInt32BE(0));
    if (name === 'unknown') {
      peer.write(g.reply(number, g.ERR_UNKNOWN));
      return;
    }
    if (name === 'no greeting') return;
    peer.write(g.reply(number, g.INFO, g.infoExport(1 << 20, g.ALL_FLAGS)), g.reply(number, g.ACK));
    break;
  }
  if (name === 'silent') return;
  if (name === 'leave') {
    peer.stream.end();
    return;
  }
  if (name === 'garbage') {
    await peer.request();
    peer.write('what is this?');
    return;
  }
  if (name === 'slow') {
    const request = await peer.request();
    await new Promise((resolve) => setTimeout(resolve, 200));
    peer.answer(request);
  }
  await peer.serve();
}

let path = '';
beforeEach(async () => {
  const server = await listenRaw();
  path = (server.target as { path: string }).path;
  void (async () => {
    for (;;) {
      const peer = await server.accept();
      void serve(peer).catch(() => undefined);
    }
  })();
});

interface Ended {
  readonly code: number | null;
  readonly signal: string | null;
  readonly said: string;
}

function run(scenario: string, deadline: number): Promise<Ended> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [program, path, scenario], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, NODE_OPTIONS: '' },
    });
    let said = '';
    let timer: NodeJS.Timeout | undefined;
    child.stdout.on('data', (text: Buffer) => {
      said += text.toString();
      // From its first word on, which comes when it is connected.
      timer ??= setTimeout(() => child.kill('SIGKILL'), deadline);
    });
    child.stderr.on('data', (text: Buffer) => (said += text.toString()));
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      resolve({ code, signal, said: said.trim() });
    });
  });
}

describe('a process that uses the client', () => {
  it('ends by itself, and nothing is left after each way to end', async () => {
    const { code, signal, said } = await run('all', 240_000);
    expect(said.split('\n')).toEqual([
      'close: closed',
      'close with commands in flight: ENOTCONN,ENOTCONN,ENOTCONN',
      'shutdown: ready',
      'shutdown of a silent server: ENOTCONN',
      'death with commands in flight: ENOTCONN,ENOTCONN,ENOTCONN',
      'death while idle, without a listener: closed',
      'death with raw commands that are never retired: EPROTO',
      'requestTimeout: ETIMEDOUT',
      'connectTimeout: ETIMEDOUT',
      'abort of connect: mine',
      expect.stringMatching(/^abort of a command: (23|TimeoutError.*)$/),
      'no server there: ENOENT',
      'a port without a listener: ECONNREFUSED',
      'an unknown export: ENOENT',
    ]);
    expect({ code, signal }).toEqual({ code: 0, signal: null });
  });

  it('is kept alive by an idle connection that is ref’d, and by a pending command of any', async () => {
    const [idle, unref, ref, pending] = await Promise.all([
      ...[run('idle', 400), run('unref', 120_000), run('ref', 400), run('pending', 120_000)],
    ]);
    expect(idle).toEqual({ code: null, signal: 'SIGKILL', said: 'ready' });
    expect(unref).toEqual({ code: 0, signal: null, said: 'ready' });
    expect(ref).toEqual({ code: null, signal: 'SIGKILL', said: 'ready' });
    expect(pending).toEqual({ code: 0, signal: null, said: 'answered' });
  });
});
