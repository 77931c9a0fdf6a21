import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { stat } from 'node:fs/promises';

import { makeCertificates, type Certificates } from './certificates.js';
import {
  describeWith,
  hasTool,
  runLibnbd,
  runTool,
  startNbdkit,
  startNbdServer,
  startQemuNbd,
} from './real-servers.js';

const sizeOf = async (uri: string): Promise<string> => {
  const { code, stdout, stderr } = await runTool('nbdinfo', ['--size', uri]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return stdout.trim();
};

describeWith(['nbdkit', 'nbdinfo'], 'startNbdkit', () => {
  it('serves on a Unix socket and leaves nothing behind', async () => {
    const server = await startNbdkit({ args: ['1M'] });
    expect(await sizeOf(server.uri())).toBe('1048576');
    await server.stop();
    await server.stop();
    await expect(stat(server.socketPath ?? '')).rejects.toMatchObject({ code: 'ENOENT' });
    expect(() => process.kill(server.pid, 0)).toThrow('ESRCH');
  });

  it('serves on TCP, through filters, with options of its own', async () => {
    await using server = await startNbdkit({
      plugin: 'pattern',
      args: ['2M', 'truncate=1M'],
      filters: ['truncate'],
      options: ['-r', '--no-sr'],
      transport: 'tcp',
    });
    expect(server.host).toBe('127.0.0.1');
    expect(await sizeOf(server.uri())).toBe('1048576');
  });

  it('comes back at the same place after SIGKILL', async () => {
    const first = await startNbdkit({ args: ['1M'], transport: 'tcp' });
    first.kill('SIGKILL');
    await first.ended;
    await using second = await startNbdkit({ args: ['2M'], port: first.port ?? 0 });
    expect(second.port).toBe(first.port);
    expect(await sizeOf(first.uri())).toBe('2097152');
    await first.stop();
  });

  it('ends although the process was stopped', async () => {
    const server = await startNbdkit();
    server.kill('SIGSTOP');
    await server.stop();
    expect(() => process.kill(server.pid, 0)).toThrow('ESRCH');
  });

  it('reports why a server did not start', async () => {
    await expect(startNbdkit({ plugin: 'pattern', args: ['nonsense=1'] })).rejects.toThrow(
      /nbdkit .* ended: .*nonsense/s,
    );
  });
});

describeWith(['qemu-nbd', 'qemu-img', 'nbdinfo'], 'startQemuNbd', () => {
  it('serves several clients, one after the other', async () => {
    await using server = await startQemuNbd({ size: 1 << 20, exportName: 'a b/c' });
    expect(await sizeOf(server.uri('a b/c'))).toBe('1048576');
    expect(await sizeOf(server.uri('a b/c'))).toBe('1048576');
  });

  it('exports a dirty bitmap, on TCP', async () => {
    await using server = await startQemuNbd({ size: 1 << 20, bitmap: 'b0', transport: 'tcp' });
    const { stdout } = await runTool('nbdinfo', [server.uri()]);
    expect(stdout).toContain('qemu:dirty-bitmap:b0');
  });
});

describeWith(['nbd-server', 'nbdinfo'], 'startNbdServer', () => {
  it.each(['unix', 'tcp'] as const)('serves on %s', async (transport) => {
    await using server = await startNbdServer({ size: 1 << 20, transport });
    expect(await sizeOf(server.uri('export'))).toBe('1048576');
    expect(await sizeOf(server.uri('export'))).toBe('1048576');
  });
});

describeWith(['nbdkit', 'nbd-server', 'qemu-nbd', 'nbdinfo', 'openssl'], 'servers with TLS', () => {
  let certificates: Certificates;
  beforeAll(async () => {
    certificates = await makeCertificates();
  });
  afterAll(() => certificates.remove());

  const uriFor = (uri: string): string =>
    `${uri}${uri.includes('?') ? '&' : '?'}tls-certificates=${certificates.folder}`.replace('127.0.0.1', 'localhost');

  it.each([
    ['nbdkit', startNbdkit, ''],
    ['qemu-nbd', startQemuNbd, ''],
    ['nbd-server', startNbdServer, 'export'],
  ] as const)('%s takes the certificates', async (_name, start, exportName) => {
    await using server = await start({ transport: 'tcp', tls: { folder: certificates.folder } });
    expect(await sizeOf(uriFor(server.uri(exportName)))).toBe(String(64 << 20));
    const plain = await runTool('nbdinfo', ['--size', server.uri(exportName).replace('nbds:', 'nbd:')]);
    expect(plain.code).not.toBe(0);
  });

  it('nbdkit and qemu-nbd take the pre-shared key', async () => {
    await using nbdkit = await startNbdkit({ tls: { psk: certificates.pskFile } });
    await using qemu = await startQemuNbd({ tls: { psk: certificates.pskFolder } });
    for (const server of [nbdkit, qemu]) {
      const uri = server.uri().replace('nbds+unix://', 'nbds+unix://alice@');
      expect(await sizeOf(`${uri}&tls-psk-file=${certificates.pskFile}`)).toBe(String(64 << 20));
    }
  });

  it('the expired certificate and the strange CA are refused', async () => {
    await using expired = await startNbdkit({ transport: 'tcp', tls: { folder: certificates.expiredFolder } });
    expect((await runTool('nbdinfo', ['--size', uriFor(expired.uri())])).stderr).toMatch(/certificate verification/);
    await using good = await startNbdkit({ transport: 'tcp', tls: { folder: certificates.folder } });
    const strange = uriFor(good.uri()).replace(certificates.folder, certificates.strangerFolder);
    expect((await runTool('nbdinfo', ['--size', strange])).code).not.toBe(0);
  });
});

describe('runTool', () => {
  it('returns the output of the program and its exit code', async () => {
    const result = await runTool('sh', ['-c', 'cat; echo bad >&2; exit 3'], { input: 'hello' });
    expect(result).toMatchObject({ code: 3, stdout: 'hello', stderr: 'bad\n' });
  });

  it('rejects for a program that does not end, and for one that is not there', async () => {
    await expect(runTool('sleep', ['10'], { timeout: 50 })).rejects.toThrow('no end within 50 ms');
    await expect(runTool('no-such-program', [])).rejects.toThrow('ENOENT');
  });

  it('reports which programs are installed', () => {
    expect(hasTool('sh')).toBe(true);
    expect(hasTool('no-such-program')).toBe(false);
  });
});

describeWith(['nbdkit', 'python3-libnbd'], 'runLibnbd', () => {
  it('has the binding loaded', async () => {
    await using server = await startNbdkit({ plugin: 'data', args: ['data="hello"'] });
    const script = `h = nbd.NBD()\nh.connect_uri("${server.uri()}")\nprint(h.pread(5, 0).decode())`;
    expect(await runLibnbd(script)).toMatchObject({ code: 0, stdout: 'hello\n' });
  });
});
