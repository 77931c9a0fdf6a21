import { describeWith, runTool, startNbdkit, startQemuNbd } from '../support/real-servers.js';
import { nbd, out } from './support.js';

const DATA = 'data=@32768 "hello" @0x100000 (0x55*70000) @0x200000 1';

describeWith(['nbdkit', 'nbdinfo'], 'nbd map, byte for byte as nbdinfo --map', () => {
  it.each([
    ['data and holes', { plugin: 'data', args: [DATA, 'size=4M'] }],
    ['nothing', { args: ['0'] }],
    ['an odd size', { plugin: 'data', args: [DATA, 'size=2097155'] }],
    ['more than 4 GiB', { plugin: 'sparse-random', args: ['6G', 'runlength=67108864'] }],
  ])('%s', async (_title, options) => {
    await using server = await startNbdkit(options);
    for (const words of [[], ['--json'], ['--totals'], ['--totals', '--json'], ['--color']]) {
      const theirs = await runTool('nbdinfo', ['--map', ...words, server.uri()]);
      const what = words.join(' ');
      // Two spellings of one command.
      const ours = words.length === 1 ? ['map'] : ['info', '--map'];
      expect([what, await out([...ours, ...words, server.uri()])]).toEqual([what, theirs.stdout]);
    }
  });

  it('takes a part of the export, and draws a bar', async () => {
    await using server = await startNbdkit({ plugin: 'data', args: [DATA, 'size=4M'] });
    expect(await out(['map', '--offset=1M', '--length', '64k', server.uri()])).toBe(
      '   1048576       65536    0  data\n',
    );
    const bar = await out(['map', '--bar', '--no-color', server.uri()]);
    expect(bar).toMatch(/\n\[[-#]{78}\]\n# data [\d.]+ KiB {3}- hole,zero [\d.]+ MiB\n$/);
    expect(await out(['map', '--bar', '--color', server.uri()])).toContain('\u001b[48;2;37;99;235m');
    expect((await nbd(['map', '--offset=5M', server.uri()])).stderr).toMatch(/beyond the end of the export/);
  });
});

describeWith(['qemu-nbd', 'qemu-img', 'nbdinfo'], 'nbd map of a bitmap', () => {
  it('reports what is dirty, as nbdinfo does', async () => {
    await using server = await startQemuNbd({ bitmap: 'b0' });
    const context = 'qemu:dirty-bitmap:b0';
    const theirs = await runTool('nbdinfo', [`--map=${context}`, '--json', server.uri()]);
    expect(await out(['map', '--context', context, '--json', server.uri()])).toBe(theirs.stdout);
  });
});
