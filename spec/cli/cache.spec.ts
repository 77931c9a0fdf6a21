import { describeWith, startNbdkit } from '../support/real-servers.js';
import { exitOf, HALF_WAY, nbd, out, printed, start } from './support.js';

const DATA = 'data=@32768 "hello" @0x100000 (0x55*70000)';

describeWith(['nbdkit'], 'nbd cache', () => {
  it('prefetches the parts that hold data and reports how much', async () => {
    await using server = await startNbdkit({ plugin: 'data', args: [DATA, 'size=4M'] });
    expect(await out(['cache', server.uri()])).toMatch(
      /^128 KiB prefetched in 2 requests, 3\.88 MiB of zeroes skipped, [\d.]+ s, \S+ \w+\/s\n$/,
    );
    const json = JSON.parse(await out(['cache', '--json', '--all', '--request-size=1M', server.uri()])) as object;
    expect(json).toMatchObject({ cached: 4194304, skipped: 0, commands: 4 });
    expect(await out(['cache', '-q', server.uri()])).toBe('');
  });

  it('takes a range, and shows progress', async () => {
    await using server = await startNbdkit({ plugin: 'data', args: [DATA, 'size=4M'] });
    const words = ['cache', '--json', '--offset=1M', '--length', '64k', '--progress=2', server.uri()];
    const { stdout, stderr } = await nbd(words);
    expect(JSON.parse(stdout)).toMatchObject({ cached: 65536, skipped: 0, commands: 1 });
    expect(stderr).toMatch(/^0\/100\n(\d+\/100\n)*100\/100\n$/);
    expect((await nbd(['cache', '-p', server.uri()])).stderr).toMatch(/100% \[=+\] 4\.00 MiB {2}.*\/s {2}0:00 left/);
  });

  it('keeps to the server’s maximum and minimum', async () => {
    await using server = await startNbdkit({
      filters: ['blocksize-policy'],
      args: ['4M', 'blocksize-minimum=4096', 'blocksize-maximum=1M', 'blocksize-error-policy=error'],
    });
    expect(JSON.parse(await out(['cache', '--all', '--json', server.uri()]))).toMatchObject({ commands: 4 });
  });

  it('is a clear error without the command, and --read warms by reading', async () => {
    await using server = await startNbdkit({ filters: ['nocache'], args: ['4M', 'cachemode=none'] });
    const { code, stdout, stderr } = await nbd(['cache', server.uri()]);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toBe(
      'nbd cache: the server does not support the cache command (NBD_CMD_CACHE)\n' +
        'nbd cache: suggestion: use --read to warm its cache by reading\n',
    );
    expect(await out(['cache', '--read', '--all', server.uri()])).toMatch(/^4\.00 MiB read in 1 requests/);
  });

  it('reports after a failure what was done before', async () => {
    await using server = await startNbdkit({
      filters: ['error'],
      args: ['4M', 'error-cache=EIO', 'error-cache-rate=100%'],
    });
    const { code, stderr } = await nbd(['cache', '--all', server.uri()]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/incomplete: 0 B of 4\.00 MiB were prefetched\nnbd cache: .*(EIO|Input\/output)/);
  });

  it('stops at Ctrl-C with exit code 130', async () => {
    await using server = await startNbdkit({ filters: ['delay'], args: ['64M', 'delay-cache=50ms'] });
    const child = await start(['cache', '--all', '-R1', '--request-size=256k', '--progress=1', server.uri()]);
    const exit = exitOf(child);
    await printed(child, HALF_WAY);
    child.kill('SIGINT');
    expect(await exit).toBe(130);
    expect(child.err()).toMatch(/incomplete: \S+ \w+ of 64\.0 MiB were prefetched\nnbd cache: interrupted\n/);
  });
});
