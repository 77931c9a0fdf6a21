// What a hostile server may cost the client: memory, descriptors, turns of the event loop. The client runs
// in a process of its own; the server, whose memory does not count, in this one.

import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeAll, beforeEach, describe, expect, it } from '@jest/globals';

import { MemoryBackend, type NbdBackend, NbdServer, PatternBackend } from '../../lib/server/index.js';
import { on, type PeerScript, ScriptedPeer, seq, stall } from '../../lib/testing/index.js';
import { bundled } from '../support/bundled.js';
import { randomNumbers } from '../support/deliver.js';
import * as g from '../support/golden.js';

const MIB = 2 ** 20;

interface Cost {
  readonly result: unknown;
  /** MiB of RSS at the most, above what there was at the start. */
  readonly grown: number;
  /** Milliseconds of CPU that one turn of the event loop took at the most. */
  readonly turn: number;
  /** Open files at the end, above those at the start. */
  readonly descriptors: number;
}

let program = '';
beforeAll(async () => {
  program = (await bundled(['spec/faults/programs/bounds.ts']))('bounds');
});

function run(scenario: string, ...paths: readonly string[]): Promise<Cost> {
  return new Promise((resolve, reject) => {
    const args = ['--expose-gc', program, scenario, ...paths];
    const child = spawn(process.execPath, args, { env: { ...process.env, NODE_OPTIONS: '' } });
    let said = '';
    let complaint = '';
    child.stdout.on('data', (text: Buffer) => (said += text.toString()));
    child.stderr.on('data', (text: Buffer) => (complaint += text.toString()));
    child.on('close', (code, signal) => {
      if (code === 0 && complaint === '') resolve(JSON.parse(said) as Cost);
      else reject(new Error(`${scenario}: ${String(code ?? signal)} ${said} ${complaint}`));
    });
  });
}

/** Runs a scenario against a peer that plays a script. */
async function against(script: PeerScript | ((index: number) => PeerScript), scenario: string): Promise<Cost> {
  await using peer = await ScriptedPeer.listen(script);
  try {
    return await run(scenario, peer.socketPath ?? '');
  } catch (error) {
    // The record shows a mistake in the script.
    const violations = peer.connections.flatMap((connection) => connection.violations).join();
    throw new Error(`${(error as Error).message} ${violations}`, { cause: error });
  }
}

const ACK = (option: number): Buffer => g.reply(option, g.ACK);

describe('what one answer costs', () => {
  it('Z03: 10,000 exports with names of 4 KiB', async () => {
    const entry = (i: number): Buffer => g.reply(g.OPT.LIST, g.SERVER, g.cat(g.u32(4096), String(i).padEnd(4096, 'n')));
    const cost = await against({ on: [on(g.OPT.LIST, [seq(10_000, entry), ACK(g.OPT.LIST)])] }, 'names');
    expect(cost.result).toBe(10_000);
    // 40 MiB of names, and as much again for what was being read.
    expect(cost.grown).toBeLessThan(128);
  });

  it('Z05: 2^20 extents in one short turn of the event loop', async () => {
    const entries = Buffer.alloc(8 * 2 ** 20);
    for (let i = 0; i < 2 ** 20; i++) entries.writeUInt32BE(2047, 8 * i);
    for (let i = 1; i < 2 ** 20; i += 2) entries.writeUInt32BE(3, 8 * i + 4);
    const cost = await against(
      {
        size: 2 ** 31,
        reply: { command: g.CMD.STATUS, steps: ({ cookie }) => g.chunk(1, 5, cookie, g.cat(g.u32(1), entries)) },
      },
      'extents',
    );
    expect(cost.result).toBe(2 ** 20);
    expect(cost.grown).toBeLessThan(96);
    // 31 ms were measured where an object for each extent took 300.
    expect(cost.turn).toBeLessThan(1000);
  });

  it('Z07: 128 KiB in chunks of one byte, in random order', async () => {
    const length = MIB / 8;
    const seed = Math.floor(Math.random() * 2 ** 32);
    const next = randomNumbers(seed);
    const order = Array.from({ length }, (_, i) => i);
    for (let i = length - 1; i > 0; i--) {
      const j = Math.floor(next() * (i + 1));
      [order[i], order[j]] = [order[j] as number, order[i] as number];
    }
    const data = g.content(0, length);
    const cost = await against(
      {
        structuredReplies: true,
        reply: ({ cookie }) =>
          Buffer.concat([
            ...order.map((at) => g.dataChunk(cookie, at, data.subarray(at, at + 1), 0)),
            g.chunk(g.DONE, g.NONE, cookie),
          ]),
      },
      'chunks',
    );
    expect({ seed, result: cost.result }).toEqual({ seed, result: true });
    expect(cost.grown).toBeLessThan(96);
  });

  it('Z08: 512 KiB in segments of one byte', async () => {
    const cost = await run('segments');
    expect(cost.result).toBe(true);
  });

  it('Z13: 60 times 1 MiB of unknown information', async () => {
    const unknown = g.reply(g.OPT.GO, g.INFO, g.cat(g.u16(0x1234), Buffer.alloc(MIB)));
    const known = g.reply(g.OPT.GO, g.INFO, g.infoExport(MIB, g.ALL_FLAGS));
    const cost = await against({ on: [on(g.OPT.GO, [seq(60, () => unknown), known, ACK(g.OPT.GO)])] }, 'infos');
    expect(cost.result).toBe('ready');
    expect(cost.grown).toBeLessThan(48);
  });
});

describe('what silence costs', () => {
  const silent: PeerScript = { size: 2 ** 31, onTransmission: stall() };

  it('Z09: 1,000 writes of 1 MiB that the server does not read', async () => {
    const cost = await against(silent, 'writes');
    // All of them are one buffer of the caller's.
    expect(cost.result).toMatchObject({ codes: 'ENOTCONN' });
    expect((cost.result as { held: number }).held).toBeLessThan(16);
    expect(cost.grown).toBeLessThan(48);
  });

  it('G08: 1,000 aborted reads of 1 MiB that the server does not answer', async () => {
    const cost = await against(silent, 'aborts');
    expect(cost.result).toMatchObject({ codes: 'mine', sent: 8 });
    expect((cost.result as { held: number }).held).toBeLessThan(16);
    expect(cost.grown).toBeLessThan(48);
  });
});

describe('what goes on and on', () => {
  let folder: string;
  let server: NbdServer;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'nbd-bounds-'));
  });
  afterEach(async () => {
    await server.close();
    await rm(folder, { recursive: true, force: true });
  });

  const serving = async (backend: NbdBackend, scenario: string): Promise<Cost> => {
    server = new NbdServer({ exports: { '': backend }, closeTimeout: 100 });
    const path = join(folder, 'socket');
    await server.listenUnix(path);
    return run(scenario, path);
  };

  it('Z10: a server that is faster than the consumer of a stream', async () => {
    const cost = await serving(new PatternBackend(256 * MIB), 'stream');
    expect(cost.result).toBe(256 * MIB);
    expect(cost.grown).toBeLessThan(96);
  });

  it('Z11: a map of 2^40 bytes with an extent for each; it can be aborted', async () => {
    const flags = [0, 3];
    const backend: NbdBackend = {
      size: 2 ** 40,
      read: (buffer) => void buffer.fill(0),
      write: () => undefined,
      extents: (offset) =>
        Array.from({ length: 4096 }, (_, i) => ({ length: 1, flags: flags[(Number(offset) + i) % 2] as number })),
    };
    const cost = await serving(backend, 'map');
    expect(cost.result).toEqual({ code: 'mine', found: true });
    expect(cost.grown).toBeLessThan(64);
  });

  it('G29, Z14: 1,000 times connect, read and end', async () => {
    const cost = await serving(new MemoryBackend(MIB), 'connects');
    expect(cost.result).toBe('ok');
    expect(cost.descriptors).toBeLessThanOrEqual(1);
    // 16 KiB for each would be 16 MiB.
    expect(cost.grown).toBeLessThan(48);
  });

  it('G24: connections without references, with commands in flight', async () => {
    const cost = await serving(new MemoryBackend(MIB), 'forgotten');
    expect(cost.result).toBe('alive');
  });
});

describe('failures to connect', () => {
  it('G28: 1,000 of them, at the greeting and among the options, leave nothing', async () => {
    const GO = g.OPT.GO;
    const failures: readonly (readonly [code: string, script: PeerScript])[] = [
      ['ENOTCONN', { greet: [g.greeting().subarray(0, 9), { do: 'close' }] }],
      ['EPROTO', { greet: Buffer.from('HTTP/1.1 400 Bad Request\r\n') }],
      ['ENOTCONN', { on: [on(g.OPT.STRUCTURED_REPLY, { do: 'rst' })] }],
      ['ENOENT', { on: [on(GO, g.reply(GO, g.ERR_UNKNOWN))] }],
    ];
    const peers = await Promise.all(failures.map(([, script]) => ScriptedPeer.listen(script)));
    try {
      const cost = await run('failures', ...peers.map(({ socketPath }) => socketPath ?? ''));
      expect(cost.result).toEqual(failures.map(([code]) => code));
      expect(cost.descriptors).toBeLessThanOrEqual(1);
      expect(cost.grown).toBeLessThan(64);
    } finally {
      await Promise.all(peers.map((peer) => peer.stop()));
    }
  });
});
