// Servers that are killed, or stand still, in the middle of something, and come back.

import { setTimeout as delay } from 'node:timers/promises';

import { afterAll, beforeAll, beforeEach, afterEach, expect, it } from '@jest/globals';

import { NbdConnection, type NbdConnectionOptions } from '../../lib/index.js';
import { content } from '../support/golden.js';
import { leftovers, resources } from '../support/leftovers.js';
import type { RealServer } from '../support/real-servers.js';
import { atAnyPace } from '../support/pace.js';
import { describeWith } from '../support/tools.js';
import { GuardedBuffer, judge, outcome, printRows } from './invariants.js';
import { Image, MIB, resume, SERVERS, signalAll, suspend } from './targets.js';

afterAll(printRows);

const COUNT = 8;
const LENGTH = 2 * MIB;
const FILL = 0x5a;
const IMPATIENT = 300;

/** Whether every byte is either the old one or a new one. */
function isMixture(bytes: Buffer, old: Buffer): boolean {
  const block = Buffer.alloc(4096, FILL);
  for (let at = 0; at < bytes.length; at += block.length) {
    const part = bytes.subarray(at, at + block.length);
    const before = old.subarray(at, at + block.length);
    if (part.equals(block) || part.equals(before)) continue;
    if (part.some((byte, i) => byte !== FILL && byte !== before[i])) return false;
  }
  return true;
}

interface Run {
  readonly connection: NbdConnection;
  readonly ends: Promise<{ readonly word: string; readonly error?: unknown }[]>;
  /** Resolves when some of it is done and most is not. */
  readonly underWay: Promise<void>;
  readonly buffers: readonly GuardedBuffer[];
  readonly closes: (string | undefined)[];
}

describe.each(SERVERS.map((kind) => [kind.name, kind] as const))('%s', (name, kind) => {
  describeWith(kind.needs, 'a server that is signalled', () => {
    let image: Image;
    let server: RealServer;
    let before: ReadonlyMap<string, number>;
    beforeAll(async () => {
      image = await Image.make();
    });
    afterAll(() => image[Symbol.asyncDispose]());
    beforeEach(async () => {
      server = await kind.start(image.file, image.socketPath);
      before = resources();
    });
    afterEach(async () => {
      // What is still standing still would never see the signal to end.
      resume(server);
      expect(await leftovers(before)).toEqual([]);
      await server.stop();
    });

    const connect = (options: NbdConnectionOptions = {}): Promise<NbdConnection> =>
      NbdConnection.connect({ path: image.socketPath }, { ...kind.options, ...options });

    const begin = async (what: 'read' | 'write', options: NbdConnectionOptions = {}): Promise<Run> => {
      const connection = await connect(options);
      const closes: (string | undefined)[] = [];
      connection.on('close', (error) => closes.push(error?.code));
      const buffers = Array.from({ length: COUNT }, () => new GuardedBuffer(LENGTH, FILL));
      const ends = Promise.all(
        buffers.map((buffer, i) =>
          outcome(
            what === 'read'
              ? connection.preadInto(buffer.bytes, i * LENGTH)
              : connection.pwrite(buffer.bytes, i * LENGTH),
          ).then((end) => {
            buffer.seal(what === 'read' ? undefined : 0xee);
            return end;
          }),
        ),
      );
      // Writes that go out together settle together, but the first reply comes when the first one is done.
      const start = connection.statsBytesReceived();
      const isUnderWay = (): boolean => connection.statsBytesReceived() - start > (what === 'read' ? MIB : 0);
      const underWay = (async (): Promise<void> => {
        while (!isUnderWay()) {
          if (closes.length > 0) throw new Error(`the connection ended before: ${String(closes[0])}`);
          await new Promise(setImmediate);
        }
      })();
      return { connection, ends, underWay, buffers, closes };
    };

    /** Reads were right or failed; writes are there as far as they succeeded, and restored. */
    const check = async (what: 'read' | 'write', run: Run, title: string, code: string): Promise<void> => {
      const ends = await run.ends;
      const words = ends.map(({ word }) => word);
      const problems = run.buffers.flatMap((buffer) => buffer.problems());
      if (what === 'read') {
        for (const [i, { word }] of ends.entries()) {
          const isRight = run.buffers[i]?.bytes.equals(content(i * LENGTH, LENGTH)) === true;
          if (word === 'ok' && !isRight) problems.push(`read ${i}: success with wrong data`);
        }
      }
      // One ran out of time; the others end with the connection.
      const failed = words.filter((word) => word !== 'ok').sort((a, b) => Number(b === code) - Number(a === code));
      if (failed.length === 0) problems.push('nothing failed');
      if (run.closes.length !== 1) problems.push(`${run.closes.length} close events`);
      const expected = [code, ...failed.slice(1).map(() => 'ENOTCONN')].join(' ');
      judge([
        {
          title: `${name}: ${title}`,
          expected: `${expected}; dead, close with ${code}`,
          seen: `${failed.join(' ')}; ${run.connection.connectionState()}, close with ${String(run.closes[0])}`,
          problems,
        },
      ]);
      run.connection.close();
    };

    const verifyWrites = async (run: Run): Promise<void> => {
      const ends = await run.ends;
      await using connection = await connect();
      for (const [i, { word }] of ends.entries()) {
        const bytes = await connection.pread(LENGTH, i * LENGTH);
        const old = content(i * LENGTH, LENGTH);
        const isNew = bytes.equals(Buffer.alloc(LENGTH, FILL));
        if (word === 'ok') expect(isNew).toBe(true);
        // What failed may be there, whole or in part, but nothing else: not what the caller did to its buffer since.
        else if (!isNew) expect(isMixture(bytes, old)).toBe(true);
        await connection.pwrite(old, i * LENGTH);
      }
    };

    for (const what of ['read', 'write'] as const) {
      it(`F08: SIGKILL in the middle of a ${what}; it comes back, and the next connection works`, async () => {
        const run = await begin(what);
        await run.underWay;
        signalAll(server, 'SIGKILL');
        await check(what, run, `SIGKILL in the middle of a ${what}`, 'ENOTCONN');
        expect((await outcome(run.connection.pread(512, 0))).word).toBe('EINVAL');
        await server.ended;
        expect((await outcome(connect())).word).toMatch(/^(ECONNREFUSED|ENOENT)$/);
        await server.stop();
        server = await kind.start(image.file, image.socketPath);
        before = resources();
        if (what === 'write') await verifyWrites(run);
        else await (await connect()).shutdown();
      });

      it(`F11: SIGSTOP in the middle of a ${what}: requestTimeout gives up`, async () => {
        // A server that is slow to begin times out before it is stopped.
        await atAnyPace(async (pace) => {
          const run = await begin(what, { requestTimeout: IMPATIENT * pace });
          try {
            await run.underWay;
            await suspend(server);
            await check(what, run, `SIGSTOP in the middle of a ${what}`, 'ETIMEDOUT');
          } finally {
            run.connection.close();
            resume(server);
          }
          if (what === 'write') await verifyWrites(run);
        });
      });

      it(`F12: SIGSTOP in the middle of a ${what}, then SIGCONT: everything succeeds`, async () => {
        const run = await begin(what, { requestTimeout: 20_000 });
        await run.underWay;
        await suspend(server);
        await delay(30);
        expect(run.connection.aioInFlight()).toBeGreaterThan(0);
        resume(server);
        expect((await run.ends).map(({ word }) => word)).toEqual(Array.from({ length: COUNT }, () => 'ok'));
        expect(run.buffers.flatMap((buffer) => buffer.problems())).toEqual([]);
        if (what === 'write') await verifyWrites(run);
        else expect(run.buffers.every(({ bytes }, i) => bytes.equals(content(i * LENGTH, LENGTH)))).toBe(true);
        await run.connection.shutdown();
        expect(run.closes).toEqual([undefined]);
      });
    }

    it('SIGSTOP before the greeting: connectTimeout gives up; the next attempt works', async () => {
      await suspend(server);
      const { word, error } = await outcome(connect({ connectTimeout: IMPATIENT }));
      expect(word).toBe('ETIMEDOUT');
      expect((error as Error).name).toBe('NbdConnectionError');
      resume(server);
      await (await connect()).shutdown();
    });

    it('SIGKILL before the greeting: the attempt ends at once', async () => {
      await suspend(server);
      const connecting = outcome(connect({ connectTimeout: 0 }));
      await delay(20);
      signalAll(server, 'SIGKILL');
      // A connection that the server had not accepted yet is reset.
      expect(['ENOTCONN', 'ECONNRESET']).toContain((await connecting).word);
    });

    it.each([
      ['SIGSTOP', 'ETIMEDOUT'],
      ['SIGKILL', 'ENOTCONN'],
    ] as const)('%s in the middle of the options: %s', async (signal, code) => {
      const test = async (connectTimeout: number): Promise<void> => {
        const connection = await connect({ optMode: true, connectTimeout });
        const closes: (string | undefined)[] = [];
        connection.on('close', (error) => closes.push(error?.code));
        try {
          await suspend(server);
          const going = outcome(connection.optGo());
          if (signal === 'SIGKILL') signalAll(server, signal);
          expect((await going).word).toBe(code);
          expect(connection.connectionState()).toBe('dead');
          expect(closes).toEqual([code]);
        } finally {
          connection.close();
          resume(server);
        }
      };
      // The timeout is that of the options before the signal, too.
      if (signal === 'SIGSTOP') await atAnyPace((pace) => test(IMPATIENT * pace));
      else await test(0);
    });

    it('G21: shutdown() of a server that stands still ends within closeTimeout', async () => {
      const connection = await connect({ closeTimeout: 100 });
      await suspend(server);
      const read = outcome(connection.pread(512, 0));
      await connection.shutdown();
      expect((await read).word).toBe('ENOTCONN');
      expect(connection.connectionState()).toBe('closed');
    });
  });
});
