// Faults that hold requests and replies, that change data, and that depend on a seed.

import { describe, expect, it } from '@jest/globals';
import { NbdConnection } from '../../lib/index.js';
import { type Fault, FaultPlan, MemoryBackend, NbdServer, type NbdServerOptions } from '../../lib/server/index.js';
import { settled, until } from '../support/waiting.js';

const SIZE = 1 << 20;
const CONTENTS = Buffer.alloc(SIZE, 'contents');

interface Served extends AsyncDisposable {
  readonly server: NbdServer;
  readonly backend: MemoryBackend;
  readonly connection: NbdConnection;
}

async function served(faults: Fault[], options: NbdServerOptions = {}): Promise<Served> {
  const backend = MemoryBackend.from(CONTENTS);
  const server = new NbdServer({ exports: { '': backend }, closeTimeout: 500, ...options });
  server.faults.push(...faults);
  const connection = await NbdConnection.connect(server.connectMemory());
  return { server, backend, connection, [Symbol.asyncDispose]: () => server.close() };
}

const read = (backend: MemoryBackend, length: number, offset: number): Buffer => {
  const bytes = Buffer.alloc(length);
  backend.read(bytes, offset);
  return bytes;
};

describe('a fault that holds', () => {
  it('puts replies into the order in which they are released', async () => {
    await using it = await served([{ command: 'pread', hold: 'reply' }]);
    const { connection, server } = it;
    const order: number[] = [];
    const reads = [0, 1, 2].map(async (number) => {
      const bytes = await connection.pread(8, number * 8);
      order.push(number);
      return bytes;
    });
    const held = await server.faults.untilHeld(3);
    expect(held.map(({ request }) => request)).toMatchObject(
      [0, 8, 16].map((offset) => ({ command: 'pread', offset })),
    );
    await connection.flush(); // others pass
    for (const number of [2, 0, 1]) {
      held[number]?.release();
      held[number]?.release();
      await until(() => order.at(-1) === number);
    }
    expect(await Promise.all(reads)).toEqual(Array.from({ length: 3 }, () => Buffer.from('contents')));
    expect(order).toEqual([2, 0, 1]);
    expect(server.faults.held).toEqual([]);
  });

  it.each([
    ['request', 'contents'],
    ['reply', 'changed.'],
  ] as const)('carries a held %s out when it should', async (hold, meanwhile) => {
    await using it = await served([{ command: 'pwrite', hold }]);
    const write = it.connection.pwrite(Buffer.from('changed.'), 0);
    await it.server.faults.untilHeld();
    await settled();
    expect(read(it.backend, 8, 0).toString()).toBe(meanwhile);
    expect(it.connection.aioInFlight()).toBe(1);
    it.server.faults.release();
    await write;
    expect(read(it.backend, 8, 0).toString()).toBe('changed.');
  });

  it('holds what a client asks for after a disconnect, and errors too', async () => {
    await using it = await served([{ command: 'pread', hold: 'reply' }]);
    const failing = it.connection.pread(8, SIZE - 4).catch((error: unknown) => error);
    expect(await failing).toMatchObject({ code: 'EINVAL' }); // refused by the client
    it.connection.setStrictMode(0);
    const refused = it.connection.pread(8, SIZE - 4).catch((error: unknown) => error);
    await it.server.faults.untilHeld();
    const ended = it.connection.shutdown();
    it.server.faults.release();
    expect(await refused).toMatchObject({ code: 'EINVAL' });
    await ended;
  });

  it('forgets what a lost client has asked for, and releases all when the server closes', async () => {
    const it = await served([{ hold: 'request' }, { hold: 'reply' }]);
    const lost = it.connection.flush().catch((error: unknown) => error);
    await it.server.faults.untilHeld();
    it.connection.close();
    expect(await lost).toMatchObject({ code: 'ENOTCONN' });
    await until(() => it.server.faults.held.length === 0);

    it.server.faults.clear();
    it.server.faults.push({ command: 'pread', hold: 'reply' }, { command: 'flush', hold: 'request' });
    const other = await NbdConnection.connect(it.server.connectMemory());
    const answered = other.pread(8, 0);
    const late = other.flush().catch((error: unknown) => error);
    await it.server.faults.untilHeld(2);
    const waiting = it.server.faults.untilHeld(3).catch((error: unknown) => error);
    await it.server.close();
    expect((await answered).toString()).toBe('contents');
    expect(await late).toMatchObject({ code: 'ESHUTDOWN' });
    expect(await waiting).toMatchObject({ name: 'NbdStateError', code: 'ESHUTDOWN' });
    await expect(it.server.faults.untilHeld()).rejects.toMatchObject({ code: 'ESHUTDOWN' });
    other.close();
  });

  it('is not read from any more when maxInFlight requests are held', async () => {
    await using it = await served([{ hold: 'request' }], { maxInFlight: 2 });
    const reads = Array.from({ length: 4 }, (_, at) => it.connection.pread(8, at * 8));
    await it.server.faults.untilHeld(2);
    await settled();
    expect(it.server.statistics.requests.pread).toBe(2);
    it.server.faults.release();
    await it.server.faults.untilHeld(2);
    it.server.faults.release();
    expect(await Promise.all(reads)).toHaveLength(4);
  });

  it('stops waiting when the signal is aborted, and checks what it is given', async () => {
    const plan = new FaultPlan();
    const controller = new AbortController();
    const waiting = plan.untilHeld(1, controller.signal);
    controller.abort(new Error('enough'));
    await expect(waiting).rejects.toThrow('enough');
    await expect(plan.untilHeld(1, controller.signal)).rejects.toThrow('enough');
    await expect(plan.untilHeld(0)).rejects.toMatchObject({ code: 'EINVAL' });
    await expect(plan.untilHeld(1, {} as AbortSignal)).rejects.toMatchObject({ code: 'EINVAL' });
  });
});

/** The bits in which two buffers differ. */
function differing(one: Buffer, other: Buffer): number[] {
  return [...one].flatMap((byte, at) =>
    [0, 1, 2, 3, 4, 5, 6, 7].filter((bit) => ((byte ^ (other[at] ?? 0)) >> bit) & 1).map((bit) => at * 8 + bit),
  );
}

describe('a fault that corrupts', () => {
  const corruptRead = async (seed: number, options: NbdServerOptions = {}): Promise<number[]> => {
    await using it = await served([{ command: 'pread', nth: 2, corrupt: 5 }], { seed, ...options });
    expect(differing(await it.connection.pread(4096, 0), CONTENTS.subarray(0, 4096))).toEqual([]);
    const hit = differing(await it.connection.pread(4096, 512), CONTENTS.subarray(512, 512 + 4096));
    expect(differing(await it.connection.pread(4096, 512), CONTENTS.subarray(512, 512 + 4096))).toEqual([]);
    return hit;
  };

  it('inverts that many bits of a read, which the seed decides', async () => {
    const hit = await corruptRead(1);
    expect(hit).toHaveLength(5);
    expect(await corruptRead(1)).toEqual(hit);
    expect(await corruptRead(2)).not.toEqual(hit);
    // In a reply of one piece too, and in holes.
    expect(await corruptRead(1, { features: { structuredReply: false, extendedHeaders: false } })).toEqual(hit);
  });

  it('inverts bits of a hole, and all bits of a short read', async () => {
    await using it = await served([{ corrupt: 9 }], { exports: { '': new MemoryBackend(SIZE) } });
    expect(differing(await it.connection.pread(65536, 65536), Buffer.alloc(65536))).toHaveLength(9);
    expect(await it.connection.pread(1, 0)).toEqual(Buffer.from([0xff]));
  });

  it('changes what is stored by a write, not the buffer of the client', async () => {
    await using it = await served([{ command: 'pwrite', corrupt: 3 }]);
    const data = Buffer.alloc(1000, 'x');
    await it.connection.pwrite(data, 100);
    expect(data).toEqual(Buffer.alloc(1000, 'x'));
    expect(differing(read(it.backend, 1000, 100), data)).toHaveLength(3);
    expect(read(it.backend, 100, 0)).toEqual(CONTENTS.subarray(0, 100));
    expect(read(it.backend, 100, 1100)).toEqual(CONTENTS.subarray(1100, 1200));
  });

  it('concerns reads and writes only', () => {
    const plan = new FaultPlan();
    plan.push({ corrupt: 1 });
    const request = { flags: 0, offset: 0, count: 1, exportName: '', connection: 1 };
    expect(plan.match({ ...request, command: 'flush' })).toBeNull();
    expect(plan.match({ ...request, command: 'pread' })).not.toBeNull();
  });
});

describe('a fault with a probability', () => {
  const failures = async (seed: number | undefined, probability: number): Promise<boolean[]> => {
    await using it = await served([{ probability, error: 'EIO' }], seed === undefined ? {} : { seed });
    const all = await Promise.allSettled(Array.from({ length: 400 }, (_, at) => it.connection.pread(8, at * 8)));
    return all.map(({ status }) => status === 'rejected');
  };

  it('fails about that share of the requests, the same ones for the same seed', async () => {
    const first = await failures(7, 0.25);
    const count = first.filter(Boolean).length;
    // 400 at 1/4: 100, with a standard deviation of 9. The seed makes it the same each time.
    expect(count).toBeGreaterThan(60);
    expect(count).toBeLessThan(140);
    expect(await failures(7, 0.25)).toEqual(first);
    expect(await failures(8, 0.25)).not.toEqual(first);
    expect(await failures(undefined, 0.25)).toEqual(await failures(0, 0.25));
    expect((await failures(3, 1)).every(Boolean)).toBe(true);
  });

  it('is independent of the faults before it', () => {
    const request = { command: 'pread', flags: 0, offset: 0, count: 1, exportName: '', connection: 1 } as const;
    const plan = new FaultPlan(5);
    plan.push({ probability: 0.5, delay: 1 }, { probability: 0.5, error: 'EIO' });
    const seen = Array.from({ length: 200 }, () => plan.match(request)?.fault);
    const counts = ['delay', 'error'].map(
      (kind) => seen.filter((fault) => fault !== undefined && kind in fault).length,
    );
    expect(counts.every((count) => count > 25 && count < 130)).toBe(true);
    expect(counts[0]! + counts[1]!).toBeLessThan(190);
  });
});

describe('bad faults', () => {
  it.each([
    [{ hold: true }, /hold: must be one of "request", "reply"/],
    [{ corrupt: 0 }, /corrupt: must be a whole number from 1/],
    [{ corrupt: 1.5 }, /corrupt: must be a whole number/],
    [{ corrupt: 1, command: 'flush' }, /command: must be one of "pread", "pwrite"/],
    [{ probability: 0, error: 'EIO' }, /probability: must be above 0 and at most 1, not 0/],
    [{ probability: 1.1, error: 'EIO' }, /probability/],
    [{ probability: NaN, stall: true }, /probability/],
    [{ hold: 'reply', corrupt: 1 }, /exactly one of/],
  ])('%j is refused', (fault, message) => {
    const plan = new FaultPlan();
    expect(() => plan.push(fault as unknown as Fault)).toThrow(
      expect.objectContaining({
        name: 'NbdStrictError',
        code: 'EINVAL',
        message: expect.stringMatching(message) as unknown,
      }),
    );
  });

  it.each([
    [{ seed: -1 }, /seed/],
    [{ seed: 2 ** 32 }, /seed/],
    [{ rate: 0 }, /rate/],
    [{ rate: 1.5 }, /rate/],
    [{ openExport: 'disk' }, /openExport/],
    [{ exports: { '': { backend: new MemoryBackend(1), oversizedWrites: 'drop' } } }, /oversizedWrites/],
  ])('%j is refused by the server', (options, message) => {
    expect(() => new NbdServer(options as unknown as NbdServerOptions)).toThrow(message);
  });
});
