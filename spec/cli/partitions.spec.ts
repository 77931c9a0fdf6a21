// `nbd info --partitions` and `nbd list --partitions`; what is read is the subject of bulk/partitions.spec.ts.

import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describeWith, runTool, startNbdkit } from '../support/real-servers.js';
import { nbd, out } from './support.js';

interface Report {
  readonly exports: readonly { readonly partitions?: { readonly partitions: readonly object[] } | null }[];
}

describeWith(['nbdkit', 'sfdisk'], 'nbd info --partitions', () => {
  let folder: string;
  let file: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'nbd-info-partitions-spec-'));
    file = join(folder, 'disk.img');
    const handle = await open(file, 'w');
    await handle.truncate(64 * 1024 * 1024);
    await handle.close();
    const table = 'label: gpt\nsize=10MiB, type=uefi, name="a\u202eb"\ntype=linux\n';
    expect((await runTool('sfdisk', ['-q', file], { input: table })).code).toBe(0);
  });
  afterAll(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  it('shows the table, escaped, and what is wrong with it', async () => {
    await using server = await startNbdkit({ plugin: 'file', args: [file] });
    const text = await out(['info', '--partitions', server.uri()]);
    expect(text).toMatch(/\n\tpartitions: gpt, sectors of 512 bytes, [\dA-F-]{36}\n\t\tno +offset +length +type\n/);
    expect(text).toMatch(/\n\t\t 1 +1048576 +10485760 +10\.0 MiB {2}EFI System, "a\\u202eb"\n/);
    expect(text).not.toContain('problem');
    const json = JSON.parse(await out(['list', '--json', '--partitions', server.uri()])) as Report;
    expect(json.exports[0]?.partitions?.partitions).toMatchObject([
      { number: 1, offset: 1048576, length: 10485760, typeName: 'EFI System', name: 'a\u202eb', isBootable: false },
      { number: 2, typeName: 'Linux filesystem', name: null },
    ]);
    const handle = await open(file, 'r+');
    await handle.write(Buffer.alloc(512), 0, 512, 512);
    await handle.close();
    expect(await out(['info', '--partitions', '--no-content', server.uri()])).toMatch(
      /\n\t\tproblem: the table at the beginning is damaged \(no header\); the backup at the end is used\n$/,
    );
  });

  it('shows that there is none, only where it was asked for', async () => {
    await using server = await startNbdkit({ args: ['1M'] });
    expect(await out(['info', '--partitions', server.uri()])).toContain('\tpartitions: none\n');
    expect(await out(['info', server.uri()])).not.toContain('partitions');
    expect(
      (JSON.parse(await out(['info', '--json', '--partitions', server.uri()])) as Report).exports[0]?.partitions,
    ).toBeNull();
    const { code, stderr } = await nbd(['info', '--size', '--partitions', server.uri()]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/--partitions has no effect with --can, --map, --size and --uri/);
  });
});
