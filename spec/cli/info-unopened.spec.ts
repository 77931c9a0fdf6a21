// `nbd info` of a server whose export cannot be opened, and the numbers that it rounds.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { general, oneDecimal } from '../../lib/cli/output/text.js';
import { MemoryBackend, NbdServer } from '../../lib/server/index.js';
import { describeWith, runTool, startNbdkit, startQemuNbd } from '../support/real-servers.js';
import { nbd, out } from './support.js';

type Case = readonly [words: readonly string[], code: number];

async function expectCodes(cases: readonly Case[], uri: string): Promise<void> {
  const results = await Promise.all(cases.map(async ([words]) => nbd(['info', ...words, uri])));
  results.forEach(({ code, stdout }, index) => {
    const [words, wanted] = cases[index] ?? [];
    expect({ words, code, stdout }).toEqual({ words, code: wanted, stdout: '' });
  });
}

describe('an export that is not there', () => {
  it('can be asked about as far as the server answers', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'nbd-unopened-spec-'));
    const server = new NbdServer({});
    server.addExport('disk', { backend: new MemoryBackend(1 << 20) });
    await server.listenUnix(join(folder, 's'));
    try {
      const [there, missing] = ['disk', 'none'].map((name) => `nbd+unix:///${name}?socket=${join(folder, 's')}`) as [
        string,
        string,
      ];
      await expectCodes(
        [
          [['--can', 'connect'], 0],
          [['--can', 'read'], 0],
          [['--cannot', 'connect'], 2],
          [['--is', 'tls'], 2],
          [['--has', 'structured-reply'], 0],
          [['--has', 'extended headers'], 0],
          [['--can', 'open'], 2],
          [['--cannot', 'open'], 0],
          [['--can', 'write'], 1],
          [['--is', 'read-only'], 1],
        ],
        missing,
      );
      expect(await out(['info', '--uri', missing])).toBe(`${missing}\n`);
      expect(await out(['info', '--uri', '--json', missing])).toBe(`"${missing}"\n`);
      expect((await nbd(['info', '--can=cache', missing])).stderr).toMatch(/no such export/);
      await expectCodes(
        [
          [['--can', 'open'], 0],
          [['--can', 'write'], 0],
          [['--cannot', 'write'], 2],
        ],
        there,
      );
      await expectCodes(
        [
          [['--can', 'connect'], 1],
          [['--can', 'open'], 1],
        ],
        `nbd+unix:///?socket=${join(folder, 'no-server')}`,
      );
    } finally {
      await server.close();
      await rm(folder, { recursive: true, force: true });
    }
  });
});

describeWith(['nbdkit'], 'servers of every kind', () => {
  it.each([
    [
      'an export that does not open',
      { filters: ['exportname'], args: ['1M', 'exportname=a', 'exportname-strict=true'] },
      2,
    ],
    ['oldstyle', { options: ['-o'] }, 0],
    ['plain newstyle', { options: ['--mask-handshake=0'] }, 0],
  ])('%s', async (_title, options, code) => {
    await using server = await startNbdkit(options);
    await expectCodes(
      [
        [['--can', 'connect'], 0],
        [['--can', 'open'], code],
        [['--is', 'tls'], 2],
        [['--can', 'write'], code === 0 ? 0 : 1],
      ],
      server.uri(),
    );
  });
});

describeWith(['qemu-nbd'], 'a server without the export', () => {
  it('is asked for its description', async () => {
    await using server = await startQemuNbd({ exportName: 'disk' });
    await expectCodes(
      [
        [['--can', 'read'], 0],
        [['--has', 'structured-reply'], 0],
        [['--can', 'open'], 2],
        [['--can', 'trim'], 1],
      ],
      server.uri('other'),
    );
  });
});

describe('numbers', () => {
  const EXACT = 100;
  const values = [
    6.25, 0.25, 99.75, 0.75, 93.75, 50, 100, 1.05, 33.3, 0.05, 12.5, 0.09765625, 3.125, 0.0009765625, 66.67,
  ];
  // Every share of a power of 2, where the ties are.
  for (let at = 1; at < 600; at += 7) values.push((100 * at) / 1024, (100 * at) / 65_536, 100 / (at * 3), at / 8e7);

  it.each([
    ['%.1f', oneDecimal],
    ['%g', general],
  ])('are rounded as printf %s does', async (format, ours) => {
    const exact = values.map((value) => value.toFixed(EXACT));
    const { stdout } = await runTool('/usr/bin/printf', [`${format}\n`, ...exact], { env: { LC_ALL: 'C' } });
    expect(values.map((value) => [value, ours(value)])).toEqual(
      stdout
        .trim()
        .split('\n')
        .map((line, index) => [values[index], line]),
    );
  });
});
