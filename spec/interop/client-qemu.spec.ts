import { expect, it } from '@jest/globals';

import { NbdConnection, STATE_DIRTY } from '../../lib/index.js';
import { rejection } from '../support/caught.js';
import { makeCertificates } from '../support/certificates.js';
import { content } from '../support/golden.js';
import { describeWith, startNbdServer, startQemuNbd } from '../support/real-servers.js';

const MIB = 1 << 20;

describeWith(['qemu-nbd', 'qemu-img'], 'qemu-nbd', () => {
  it('reports on two contexts at once, one of them a dirty bitmap', async () => {
    await using server = await startQemuNbd({ size: 4 * MIB, bitmap: 'b0' });
    const connection = await NbdConnection.connect(server.uri(), {
      metaContexts: ['base:allocation', 'qemu:dirty-bitmap:b0', 'qemu:allocation-depth'],
    });
    expect(connection.canMetaContext('qemu:dirty-bitmap:b0')).toBe(true);
    expect(connection.canMetaContext('qemu:allocation-depth')).toBe(false);
    await connection.pwrite(content(0, 65536), MIB);
    const map = await connection.blockStatus(2 * MIB, MIB);
    expect([...map.keys()].sort()).toEqual(['base:allocation', 'qemu:dirty-bitmap:b0']);
    const written = { offset: BigInt(MIB), length: 65536 };
    expect([...map.get('qemu:dirty-bitmap:b0')!][0]).toEqual({ ...written, flags: STATE_DIRTY });
    expect([...map.get('base:allocation')!][0]).toEqual({ ...written, flags: 0 });
    await connection.shutdown();
  });

  it('knows its export by name, with a description', async () => {
    await using server = await startQemuNbd({ size: MIB, exportName: 'a b/c', description: 'the disk' });
    const connection = await NbdConnection.connect(server.uri('a b/c'), { fullInfo: true });
    expect(connection.getExportDescription()).toBe('the disk');
    expect(connection.getCanonicalExportName()).toBe('a b/c');
    await connection.shutdown();
    for (const name of ['', 'other']) {
      const error = await rejection(NbdConnection.connect(server.uri(name)));
      expect(error).toMatchObject({
        code: 'ENOENT',
        exportName: name,
        serverMessage: expect.stringMatching(/not present/),
      });
    }
  });

  it('refuses more than 32 MiB in one read, and goes on', async () => {
    await using server = await startQemuNbd({ size: 64 * MIB });
    const connection = await NbdConnection.connect(server.uri());
    expect((await connection.pread(32 * MIB, 0)).length).toBe(32 * MIB);
    expect(await rejection(connection.pread(33 * MIB, 0))).toMatchObject({ code: 'EINVAL', name: 'NbdCommandError' });
    expect(await rejection(connection.pwrite(Buffer.alloc(33 * MIB), 0))).toMatchObject({ code: 'ERANGE' });
    expect((await connection.pread(1, 0)).length).toBe(1);
    await connection.shutdown();
  });

  it('read-only: EPERM for writes', async () => {
    await using server = await startQemuNbd({ size: MIB, args: ['--read-only'] });
    const connection = await NbdConnection.connect(server.uri());
    expect(connection.isReadOnly()).toBe(true);
    expect(await rejection(connection.pwrite(Buffer.alloc(512), 0))).toMatchObject({ code: 'EPERM' });
    await connection.cache(512, 0);
    await connection.shutdown();
  });
});

describeWith(['qemu-nbd', 'qemu-img', 'nbd-server', 'openssl'], 'servers that require TLS', () => {
  it.each([
    ['qemu-nbd', startQemuNbd, ''],
    ['nbd-server', startNbdServer, 'export'],
  ] as const)('%s: ENOTSUP, and the way out', async (_name, start, exportName) => {
    await using certificates = await makeCertificates();
    await using server = await start({ tls: { folder: certificates.folder }, transport: 'tcp' });
    const error = await rejection(NbdConnection.connect({ host: server.host!, port: server.port! }, { exportName }));
    expect(error).toMatchObject({ code: 'ENOTSUP', name: 'NbdOptionError' });
    expect((error as Error).message).toMatch(/requires TLS.*nbds:\/\//);
  });
});

describeWith(['nbd-server'], 'nbd-server', () => {
  it('speaks simple replies only, and knows its exports', async () => {
    await using server = await startNbdServer({ size: MIB });
    const connection = await NbdConnection.connect(server.uri('export'), { metaContexts: ['base:allocation'] });
    expect(connection.getStructuredRepliesNegotiated()).toBe(false);
    expect(await rejection(connection.blockStatus(512, 0))).toMatchObject({ code: 'ENOTSUP' });
    expect(await rejection(connection.preadStructured(512, 0, () => undefined, 4))).toMatchObject({ code: 'EINVAL' });
    await connection.pwrite(content(0, 5000), 3);
    expect((await connection.pread(5000, 3)).equals(content(0, 5000))).toBe(true);
    // It has no cache command; what is sent all the same it refuses.
    connection.setStrictMode(0);
    expect(await rejection(connection.cache(512, 0))).toMatchObject({ code: 'EINVAL', name: 'NbdCommandError' });
    expect((await connection.pread(1, 3)).equals(content(0, 1))).toBe(true);
    await connection.shutdown();
    expect(await rejection(NbdConnection.connect(server.uri('other')))).toMatchObject({ code: 'ENOENT' });
  });
});
