// One random workload through libnbd (Debian's python3-libnbd) and through this package, each on a fresh copy of the
// same export: the same result or errno of every call, the same extents, and the same bytes at the end. Calls that
// must fail are part of it. SEED repeats a run.

import { createHash } from 'node:crypto';

import { expect, it } from '@jest/globals';

import { NbdConnection, type NbdError } from '../../lib/index.js';
import { describeWith, type RealServer, runLibnbd, startNbdkit, startQemuNbd } from '../support/real-servers.js';
import { Random, seedOf } from './random.js';
import { SEED } from './seed.js';

const SIZE = 2 ** 20;
const CALLS = 250;
/** STRICT_* bits that libnbd has had from the beginning; those that came later stay on in ours. */
const LATER = 0x60;
const ALLOCATION = 'base:allocation';

type Call = readonly [method: string, count: number, offset: number, flags: number, fill: number];

const METHODS = [
  ...['pread', 'pread', 'pread', 'pwrite', 'pwrite', 'pwrite', 'zero', 'zero', 'trim', 'cache', 'flush'],
  ...['status', 'status', 'structured'],
];

/** Mostly good calls; the others leave the export, have odd lengths, or flags that they must not have. */
function makeCalls(random: Random): Call[] {
  return Array.from({ length: CALLS }, (): Call => {
    const method = random.pick(METHODS);
    const count = random.pick([512, 4096, 4096, 65536, 100, 1, random.between(1, 20_000)]);
    const offset = random.oneIn(8)
      ? random.pick([SIZE, SIZE - 1, SIZE - 512, SIZE + 4096, 2 ** 40])
      : random.below(SIZE / 512) * (random.oneIn(4) ? 511 : 512);
    const own: Record<string, number[]> = { zero: [0, 1, 2, 3, 16], structured: [0, 4], status: [0, 8] };
    const known = own[method] ?? (method === 'pread' || method === 'cache' || method === 'flush' ? [0] : [0, 1]);
    const flags = random.oneIn(10) ? random.pick([1, 2, 4, 8, 16, 0x100, 0x10000]) : random.pick(known);
    return [method, random.oneIn(20) ? 0 : count, offset, flags, random.between(1, 255)];
  });
}

const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex').slice(0, 16);

const SCRIPT = `
import hashlib, json, sys
work = json.load(sys.stdin)
def digest(b): return hashlib.sha256(bytes(b)).hexdigest()[:16]
h = nbd.NBD()
h.set_strict_mode(work["mode"])
h.add_meta_context("base:allocation")
h.connect_uri(work["uri"])
for method, count, offset, flags, fill in work["calls"]:
  told = []
  def extent(context, offset, entries, error): told.extend(entries)
  def chunk(data, offset, status, error): pass
  try:
    if method == "pread": result = digest(h.pread(count, offset, flags))
    elif method == "structured": result = digest(h.pread_structured(count, offset, chunk, flags))
    elif method == "pwrite": result = h.pwrite(bytes([fill]) * count, offset, flags)
    elif method == "flush": result = h.flush(flags)
    elif method == "status": result = h.block_status(count, offset, extent, flags)
    else: result = getattr(h, method)(count, offset, flags)
    if method == "status": result = " ".join(map(str, told))
    print("ok", "" if result is None else result)
  except nbd.Error as e:
    print(e.errno)
  if not h.aio_is_ready(): print("not ready"); break
else:
  try:
    print(digest(b"".join(bytes(h.pread(65536, at)) for at in range(0, ${SIZE}, 65536))))
  except nbd.Error as e:
    print(e.errno)
`;

async function byLibnbd(uri: string, mode: number, calls: readonly Call[]): Promise<string[]> {
  const { code, stdout, stderr } = await runLibnbd(SCRIPT, {
    input: JSON.stringify({ uri, mode, calls }),
  });
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return stdout
    .trim()
    .split('\n')
    .map((line) => line.trim());
}

async function byUs(uri: string, mode: number, calls: readonly Call[]): Promise<string[]> {
  const c = await NbdConnection.connect(uri, { strictMode: mode | LATER, metaContexts: [ALLOCATION] });
  const lines: string[] = [];
  for (const call of calls) {
    try {
      lines.push(`ok ${await perform(c, call)}`.trim());
    } catch (error) {
      lines.push((error as NbdError).code);
    }
    if (!c.aioIsReady()) {
      lines.push('not ready');
      return lines;
    }
  }
  lines.push(await wholeExport(c).then(digest, (error: unknown) => (error as NbdError).code));
  await c.shutdown();
  return lines;
}

async function wholeExport(c: NbdConnection): Promise<Buffer> {
  const all: Buffer[] = [];
  for (let at = 0; at < SIZE; at += 65536) all.push(await c.pread(65536, at));
  return Buffer.concat(all);
}

async function perform(c: NbdConnection, [method, count, offset, flags, fill]: Call): Promise<string> {
  switch (method) {
    case 'pread':
      return digest(await c.pread(count, offset, flags));
    case 'structured':
      return digest(await c.preadStructured(count, offset, () => undefined, flags));
    case 'pwrite':
      await c.pwrite(Buffer.alloc(count, fill), offset, flags);
      return '';
    case 'flush':
      await c.flush(flags);
      return '';
    case 'status': {
      const told = await c.blockStatus(count, offset, flags);
      return [...(told.get(ALLOCATION)?.entries ?? [])].join(' ');
    }
    default:
      await c[method as 'zero' | 'trim' | 'cache'](count, offset, flags);
      return '';
  }
}

/** nbdkit's memory; with the error filter, configured with the commands that fail. */
const nbdkit = (options: string[] = [], ...errors: string[]): Promise<RealServer> =>
  startNbdkit({ args: [String(SIZE), ...errors], filters: errors.length > 0 ? ['error'] : [], options });

const SERVERS: readonly (readonly [string, string[], () => Promise<RealServer>])[] = [
  ['nbdkit', ['nbdkit'], () => nbdkit()],
  ['nbdkit, read-only', ['nbdkit'], () => nbdkit(['-r'])],
  ['nbdkit without structured replies', ['nbdkit'], () => nbdkit(['--no-sr'])],
  ['nbdkit, every command failing', ['nbdkit'], () => nbdkit([], 'error=ENOMEM', 'error-rate=100%')],
  [
    'nbdkit, writes failing',
    ['nbdkit'],
    () => nbdkit([], 'error=ENOSPC', 'error-pwrite-rate=100%', 'error-zero-rate=100%'),
  ],
  ['qemu-nbd', ['qemu-nbd', 'qemu-img'], () => startQemuNbd({ size: SIZE, args: ['--discard=unmap'] })],
  ['qemu-nbd, read-only', ['qemu-nbd', 'qemu-img'], () => startQemuNbd({ size: SIZE, args: ['--read-only'] })],
];

/** libnbd's checks all on, and all off: how the server itself answers bad calls. */
const MODES = [
  ['with strict mode', 0x1f],
  ['without strict mode', 0],
] as const;

for (const [name, needs, start] of SERVERS) {
  describeWith([...needs, 'python3-libnbd'], `a random workload, as by libnbd, on ${name}, seed ${SEED}`, () => {
    it.each(MODES)('%s', async (_title, mode) => {
      for (let round = 0; round < (name.includes(' ') ? 1 : 3); round++) {
        const calls = makeCalls(new Random(seedOf(SEED, round)));
        await using theirServer = await start();
        await using ourServer = await start();
        const theirs = await byLibnbd(theirServer.uri(), mode, calls);
        const ours = await byUs(ourServer.uri(), mode, calls);
        expect(theirs).toHaveLength(CALLS + 1);
        const label = (lines: readonly string[]): string[] =>
          lines.map((line, index) => `${calls[index]?.slice(0, 4).join(' ') ?? 'all bytes'}: ${line}`);
        expect(label(ours)).toEqual(label(theirs));
      }
    });
  });
}
