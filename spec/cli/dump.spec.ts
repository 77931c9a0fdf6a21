import { describeWith, runTool, startNbdkit } from '../support/real-servers.js';
import { nbd, out } from './support.js';

const DATA = 'data=@32768 "hello, world. this is data" 1 2 3 @0x100003 le32:9 @0x180000 (0x55*100000)';

describeWith(['nbdkit', 'nbddump'], 'nbd dump, byte for byte as nbddump', () => {
  const LIMITS = [['--limit', '100'], ['--limit=32800']];
  const COLOURED = ['--color', '--limit', '40'];
  it.each([
    ['data and holes', { plugin: 'data', args: [DATA, 'size=2M'] }, [...LIMITS, COLOURED]],
    ['an odd size', { plugin: 'data', args: [DATA, 'size=2097155'] }, []],
    ['without extents', { plugin: 'data', args: [DATA, 'size=2M'], options: ['--no-sr'] }, LIMITS],
    ['nothing', { args: ['0'] }, []],
    ['a few bytes', { plugin: 'data', args: ['data="abc" 0 255'] }, [COLOURED]],
    ['two pages', { plugin: 'data', args: ['data="x" @8192 "y"', 'size=16K'] }, []],
  ])('%s', async (_title, options, others) => {
    await using server = await startNbdkit(options);
    for (const words of [[], ...others]) {
      const theirs = await runTool('nbddump', [...words, server.uri()]);
      const what = words.join(' ');
      expect([what, await out(['dump', ...words, server.uri()])]).toEqual([what, theirs.stdout]);
    }
  });

  it('begins at --offset', async () => {
    await using server = await startNbdkit({ plugin: 'data', args: [DATA, 'size=2M'] });
    const all = (await out(['dump', server.uri()])).split('\n');
    const from = (await out(['dump', '--offset', '32768', '-n', '16', server.uri()])).split('\n');
    expect(from).toEqual([all.find((line) => line.startsWith('0000008000')), '']);
    // nbddump compares the first line with what happens to be in memory.
    expect(await out(['dump', '-o', '65536', '-n', '32', server.uri()])).toBe(
      `0000010000: ${'00 '.repeat(8)} ${'00 '.repeat(8)}|${'.'.repeat(16)}|\n*\n`,
    );
    const beyond = await nbd(['dump', '--skip', '2097153', server.uri()]);
    expect(beyond).toMatchObject({ code: 1, stdout: '' });
    expect(beyond.stderr).toMatch(/beyond the end of the export/);
    expect(await out(['dump', '-o', '32k', '-n', '16', server.uri()])).toBe(from.join('\n'));
  });

  it('is quick about terabytes of nothing', async () => {
    await using server = await startNbdkit({ plugin: 'data', args: ['data="x"', 'size=1T'] });
    const text = await out(['dump', server.uri()]);
    expect(text.split('\n')).toHaveLength(5);
    expect(text).toMatch(/^0000000000: 78 00.*\n0000000010: 00.*\n\*\nfffffffff0: 00/);
  });
});
