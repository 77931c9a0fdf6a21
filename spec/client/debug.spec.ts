import { afterEach, beforeEach, describe, expect, it, jest } from '@jest/globals';

import { NbdConnection } from '../../lib/index.js';
import { MemoryBackend, NbdServer } from '../../lib/server/index.js';

let server: NbdServer;
let stderr: jest.SpiedFunction<typeof process.stderr.write>;
beforeEach(() => {
  server = new NbdServer();
  server.addExport('', { backend: new MemoryBackend(1 << 20) });
  stderr = jest.spyOn(process.stderr, 'write').mockReturnValue(true);
});
afterEach(async () => {
  stderr.mockRestore();
  await server.close();
});

async function read(connection: NbdConnection): Promise<void> {
  await connection.connectSocket(server.connectMemory());
  await connection.pread(512, 4096);
  await connection.shutdown();
}

const ENTER = ['pread', 'enter: pread of 512 bytes at offset 4096, cookie 1'];
const LEAVE = ['pread', 'leave: cookie 1'];
const onStderr = (): string => stderr.mock.calls.map(([text]) => String(text)).join('');

describe('debug messages', () => {
  it('go to stderr, with the name of the handle', async () => {
    const connection = new NbdConnection({ debug: true, handleName: 'h' });
    await read(connection);
    expect(onStderr()).toContain('nbd-sdk: debug: h: pread: enter: pread of 512 bytes at offset 4096, cookie 1\n');
  });

  it('go to the listeners of the event instead, and to stderr again without them', async () => {
    const connection = new NbdConnection({ debug: true });
    const said: [string, string][] = [];
    const listener = (context: string, message: string): void => void said.push([context, message]);
    connection.on('debug', listener);
    await read(connection);
    expect(said).toContainEqual(ENTER);
    expect(said).toContainEqual(LEAVE);
    expect(onStderr()).toBe('');

    const other = new NbdConnection({ debug: true });
    other.on('debug', listener).off('debug', listener);
    await read(other);
    expect(onStderr()).not.toBe('');
  });

  it('go to the callback and to the listeners, where there are both', async () => {
    const connection = new NbdConnection({ debug: true });
    const heard: [string, string][] = [];
    const called: [string, string][] = [];
    connection.on('debug', (context, message) => void heard.push([context, message]));
    connection.setDebugCallback((context, message) => void called.push([context, message]));
    await read(connection);
    expect(called).toContainEqual(ENTER);
    expect(heard).toEqual(called);
  });

  it('are not made while debugging is off', async () => {
    const connection = new NbdConnection({ debug: false });
    const listener = jest.fn();
    connection.on('debug', listener);
    await read(connection);
    expect(listener).not.toHaveBeenCalled();
    expect(onStderr()).toBe('');
  });
});
