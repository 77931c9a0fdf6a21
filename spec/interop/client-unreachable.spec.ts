import { type ChildProcess, spawn } from 'node:child_process';
import { connect, type Socket } from 'node:net';

import { afterEach, expect, it } from '@jest/globals';

import { NbdConnection, NbdConnectionError } from '../../lib/index.js';
import { rejection } from '../support/caught.js';
import { describeWith, findTool } from '../support/tools.js';
import { settled } from '../support/waiting.js';

let listener: ChildProcess | undefined;
const fillers: Socket[] = [];
afterEach(() => {
  listener?.kill('SIGKILL');
  for (const filler of fillers.splice(0)) filler.destroy();
});

/** A port whose SYNs are not answered any more: it listens without accepting, and its line is full. */
async function silentPort(): Promise<number> {
  const script =
    'import socket,time\ns=socket.socket()\ns.bind(("127.0.0.1",0))\ns.listen(0)\nprint(s.getsockname()[1],flush=True)\ntime.sleep(60)';
  const child = spawn(findTool('python3')!, ['-c', script], { stdio: ['ignore', 'pipe', 'ignore'] });
  listener = child;
  const port = await new Promise<number>((resolve) => {
    child.stdout.once('data', (text: Buffer) => resolve(Number(text.toString())));
  });
  for (;;) {
    const filler = connect(port, '127.0.0.1');
    filler.on('error', () => undefined);
    fillers.push(filler);
    const isIn = new Promise((resolve) => filler.once('connect', resolve));
    await Promise.race([isIn, new Promise((resolve) => setTimeout(resolve, 100))]);
    // After a pause of this process, the timer comes first, and then what had happened meanwhile.
    await settled();
    if (filler.connecting) return port;
  }
}

describeWith(['python3'], 'a host that does not answer', () => {
  it('is given up at connectTimeout, or when the signal is aborted', async () => {
    const port = await silentPort();
    const begun = performance.now();
    const error = await rejection(NbdConnection.connect({ host: '127.0.0.1', port }, { connectTimeout: 150 }));
    expect(error).toBeInstanceOf(NbdConnectionError);
    expect(error).toMatchObject({ code: 'ETIMEDOUT', syscall: 'connect' });
    expect((error as Error).message).toBe(`connect to 127.0.0.1:${port}: no connection within 150 ms (connectTimeout)`);
    expect(performance.now() - begun).toBeGreaterThan(140);

    const signal = AbortSignal.timeout(50);
    expect(await rejection(NbdConnection.connect({ host: '127.0.0.1', port }, { signal }))).toBe(signal.reason);
  });
});
