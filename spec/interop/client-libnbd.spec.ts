// The same calls, by libnbd and by this package, of the same server: the same outcome of each.

import { expect, it } from '@jest/globals';

import { NbdConnection, type NbdError } from '../../lib/index.js';
import { describeWith, type NbdkitOptions, runLibnbd, startNbdkit, startQemuNbd } from '../support/real-servers.js';

type Call = readonly [python: string, ours: (c: NbdConnection) => Promise<unknown>];

const MIB = 2 ** 20;
const x = (length: number): Buffer => Buffer.alloc(length, 0x78);

const CALLS: readonly Call[] = [
  ['h.cache(512, 0)', (c) => c.cache(512, 0)],
  ['h.cache(512, 0, 1)', (c) => c.cache(512, 0, 1)],
  ['h.cache(512, 0, 0x8000)', (c) => c.cache(512, 0, 0x8000)],
  ['h.cache(512, 0, 0x10000)', (c) => c.cache(512, 0, 0x10000)],
  ['h.cache(0, 0)', (c) => c.cache(0, 0)],
  ['h.cache(0, 2**20+1)', (c) => c.cache(0, MIB + 1)],
  ['h.cache(512, 2**20)', (c) => c.cache(512, MIB)],
  ['h.cache(2**20, 512)', (c) => c.cache(MIB, 512)],
  ['h.cache(100, 2**20)', (c) => c.cache(100, MIB)],
  ['h.cache(512, 1)', (c) => c.cache(512, 1)],
  ['h.cache(511, 0)', (c) => c.cache(511, 0)],
  ['h.cache(2**33, 0)', (c) => c.cache(2 ** 33, 0)],
  ['h.cache(1, 2**63)', (c) => c.cache(1, 2n ** 63n)],
  ['h.pread(512, 0)', (c) => c.pread(512, 0)],
  ['h.pread(512, 0, 1)', (c) => c.pread(512, 0, 1)],
  ['h.pread(0, 0)', (c) => c.pread(0, 0)],
  ['h.pread(512, 2**20-511)', (c) => c.pread(512, MIB - 511)],
  ['h.pread(65*2**20, 0)', (c) => c.pread(65 * MIB, 0)],
  ['h.pwrite(b"x"*512, 0)', (c) => c.pwrite(x(512), 0)],
  ['h.pwrite(b"x"*512, 0, 1)', (c) => c.pwrite(x(512), 0, 1)],
  ['h.pwrite(b"x"*512, 0, 2)', (c) => c.pwrite(x(512), 0, 2)],
  ['h.pwrite(b"x"*512, 2**20)', (c) => c.pwrite(x(512), MIB)],
  ['h.pwrite(b"", 0)', (c) => c.pwrite(x(0), 0)],
  ['h.pwrite(b"x"*513, 1)', (c) => c.pwrite(x(513), 1)],
  ['h.trim(512, 0)', (c) => c.trim(512, 0)],
  ['h.trim(512, 0, 1)', (c) => c.trim(512, 0, 1)],
  ['h.trim(512, 0, 2)', (c) => c.trim(512, 0, 2)],
  ['h.trim(512, 2**20)', (c) => c.trim(512, MIB)],
  ['h.trim(0, 0)', (c) => c.trim(0, 0)],
  ['h.trim(2**32, 0)', (c) => c.trim(2 ** 32, 0)],
  ['h.zero(512, 0)', (c) => c.zero(512, 0)],
  ['h.zero(512, 0, 1|2)', (c) => c.zero(512, 0, 3)],
  ['h.zero(512, 0, 16)', (c) => c.zero(512, 0, 16)],
  ['h.zero(512, 0, 8)', (c) => c.zero(512, 0, 8)],
  ['h.zero(512, 2**20)', (c) => c.zero(512, MIB)],
  ['h.zero(0, 0)', (c) => c.zero(0, 0)],
  ['h.flush()', (c) => c.flush()],
  ['h.flush(1)', (c) => c.flush(1)],
  ['h.block_status(512, 0, cb)', (c) => c.blockStatus(512, 0)],
  ['h.block_status(512, 0, cb, 8)', (c) => c.blockStatus(512, 0, 8)],
  ['h.block_status(512, 0, cb, 1)', (c) => c.blockStatus(512, 0, 1)],
  ['h.block_status(0, 0, cb)', (c) => c.blockStatus(0, 0)],
  ['h.block_status(512, 2**20, cb)', (c) => c.blockStatus(512, MIB)],
  ['h.pread_structured(512, 0, cb)', (c) => c.preadStructured(512, 0, () => undefined)],
  ['h.pread_structured(512, 0, cb, 4)', (c) => c.preadStructured(512, 0, () => undefined, 4)],
];

// STRICT_* bits that libnbd has had from the beginning; those that came later stay on in ours.
const LATER = 0x60;
const MODES = [0x1f, 0, 0x1f & ~1, 0x1f & ~2, 0x1f & ~4, 0x1f & ~8, 0x1f & ~16];

async function byLibnbd(uri: string, contexts: boolean): Promise<string[]> {
  const script = `
def cb(*a): return 0
for mode in [${MODES.join()}]:
  h = nbd.NBD()
  h.set_strict_mode(mode)
  ${contexts ? 'h.add_meta_context("base:allocation")' : 'pass'}
  h.connect_uri(${JSON.stringify(uri)})
  for text in ${JSON.stringify(CALLS.map(([python]) => python))}:
    try:
      eval(text)
      result = "ok"
    except nbd.Error as e:
      result = e.errno
    print("%d %s %s" % (mode, text, result), h.aio_is_ready())
`;
  const { code, stdout, stderr } = await runLibnbd(script);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return stdout.trim().split('\n');
}

async function byUs(uri: string, contexts: boolean): Promise<string[]> {
  const lines: string[] = [];
  for (const mode of MODES) {
    const metaContexts = contexts ? ['base:allocation'] : [];
    const c = await NbdConnection.connect(uri, { strictMode: mode | LATER, metaContexts });
    for (const [python, ours] of CALLS) {
      let result = 'ok';
      try {
        await ours(c);
      } catch (error) {
        result = (error as NbdError).code;
      }
      lines.push(`${mode} ${python} ${result} ${c.aioIsReady() ? 'True' : 'False'}`);
    }
    await c.shutdown();
  }
  return lines;
}

const SERVERS: readonly (readonly [string, NbdkitOptions, contexts: boolean])[] = [
  ['everything', { args: ['1M'] }, true],
  ['no contexts requested', { args: ['1M'] }, false],
  ['no structured replies', { args: ['1M'], options: ['--no-sr'] }, true],
  ['read-only', { args: ['1M'], options: ['-r'] }, true],
  ['no cache', { args: ['1M', 'cachemode=none'], filters: ['nocache'] }, true],
  ['no zero', { args: ['1M', 'zeromode=none'], filters: ['nozero'] }, true],
  ['no fast zero', { args: ['1M', 'fastzeromode=none'], filters: ['nozero'] }, true],
  ['no FUA', { args: ['1M'], filters: ['fua'] }, true],
  [
    'blocks of 512',
    {
      args: [
        '1M',
        'blocksize-minimum=512',
        'blocksize-preferred=4096',
        'blocksize-maximum=1M',
        'blocksize-error-policy=error',
      ],
      filters: ['blocksize-policy'],
    },
    true,
  ],
];

describeWith(['nbdkit', 'python3-libnbd'], 'the same calls as libnbd, of nbdkit', () => {
  it.each(SERVERS)('with %s', async (_title, options, contexts) => {
    await using server = await startNbdkit(options);
    const [theirs, ours] = [await byLibnbd(server.uri(), contexts), await byUs(server.uri(), contexts)];
    expect(ours).toEqual(theirs);
  });
});

describeWith(['qemu-nbd', 'qemu-img', 'python3-libnbd'], 'the same calls as libnbd, of qemu-nbd', () => {
  it.each([
    ['writable', []],
    ['read-only', ['--read-only']],
  ])('%s', async (_title, args) => {
    await using server = await startQemuNbd({ size: MIB, args });
    const [theirs, ours] = [await byLibnbd(server.uri(), true), await byUs(server.uri(), true)];
    expect(ours).toEqual(theirs);
  });
});
