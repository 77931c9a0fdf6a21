// Aborts at moments that only a real server, or a batch of replies, makes.

import { getEventListeners } from 'node:events';

import { afterAll, beforeAll, describe, expect, it, jest } from '@jest/globals';

import { NbdConnection } from '../../lib/index.js';
import { rejection } from '../support/caught.js';
import { FaultProxy } from '../support/fault-proxy.js';
import * as g from '../support/golden.js';
import { leftovers, resources } from '../support/leftovers.js';
import { openRaw } from '../support/raw-server.js';
import { type RealServer, startNbdkit } from '../support/real-servers.js';
import { describeWith } from '../support/tools.js';
import { COMMANDS } from './commands.js';
import { outcome } from './invariants.js';
import { Ground } from './runner.js';

const MIB = 2 ** 20;

describe('G12: an abort in the very event that brings the reply', () => {
  it.each([
    ['behind the reply: it has succeeded', true],
    ['in front of it: it is aborted', false],
  ])('%s', async (_title, isBehind) => {
    const { connection, peer } = await openRaw();
    const controller = new AbortController();
    const read = outcome(connection.pread(512, 0, 0, controller.signal));
    connection.aioFlush(() => controller.abort({ code: 'mine' }));
    const [first, second] = await peer.requests(2);
    // One write, so one event; the completion runs between the two replies.
    const replies = [peer.goodReply(first!), peer.goodReply(second!)];
    peer.write(...(isBehind ? replies : replies.reverse()));
    expect((await read).word).toBe(isBehind ? 'ok' : 'mine');
    void peer.serve();
    await connection.flush();
    expect(connection.aioInFlight()).toBe(0);
  });
});

describe('G30: a buffer that is taken away while its bytes arrive', () => {
  it.each(['unix', 'memory'] as const)('fails its read; what was promised to others is kept (%s)', async (over) => {
    const { connection, peer } = await openRaw({ over, structured: false });
    const bytes = new Uint8Array(MIB / 2);
    const failed = outcome(connection.preadInto(bytes, 0));
    const next = connection.pread(512, 4096);
    const [first, second] = await peer.requests(2);
    const reply = peer.goodReply(first!);
    peer.write(reply.subarray(0, 1000));
    while (bytes[900] !== g.content(900, 1)[0]) await new Promise(setImmediate);
    structuredClone(bytes.buffer, { transfer: [bytes.buffer] });
    peer.write(reply.subarray(1000), peer.goodReply(second!));
    expect((await failed).word).toBe('EFAULT');
    expect((await next).equals(g.content(4096, 512))).toBe(true);
    expect(connection.aioIsReady()).toBe(true);
  });
});

describeWith(['nbdkit'], 'aborts on the way to nbdkit', () => {
  let server: RealServer;
  let ground: Ground;
  beforeAll(async () => {
    server = await startNbdkit({ transport: 'tcp', args: ['1G'], options: ['-t1'] });
    ground = await Ground.prepare(server);
  });
  afterAll(() => ground[Symbol.asyncDispose]());

  it.each(COMMANDS.map((command) => [command.name, command] as const))(
    'G04, G07, G11: %s, aborted on the wire: its late reply disturbs no other command',
    async (_name, command) => {
      const before = resources();
      const slot = await ground.slot();
      await using proxy = await FaultProxy.start(server.address);
      const connection = await NbdConnection.connect(proxy.target, { metaContexts: ['base:allocation'] });
      proxy.link.arm({ kind: 'delay', of: 'server', at: 0, milliseconds: 60 });
      const controller = new AbortController();
      const issued = command.issue(connection, slot, controller.signal);
      const aborted = outcome(issued.promise);
      await proxy.link.struck;
      const reason = { code: 'mine' };
      controller.abort(reason);
      expect((await aborted).error).toBe(reason);
      const problems = issued.settled(false);
      // Its cookie and credit stay taken until the reply.
      expect(connection.aioInFlight()).toBe(1);
      const next = connection.pread(4096, 8192);
      expect((await next).equals(g.content(8192, 4096))).toBe(true);
      expect(connection.aioInFlight()).toBe(0);
      await connection.shutdown();
      expect([...problems, ...(issued.problems?.() ?? [])]).toEqual([]);
      await proxy[Symbol.asyncDispose]();
      expect(await leftovers(before)).toEqual([]);
    },
  );

  it('G13: one signal for 10,000 commands in a row: no listener is left, no warning', async () => {
    const warned = jest.fn();
    process.on('warning', warned);
    const connection = await NbdConnection.connect(server.uri());
    const controller = new AbortController();
    let most = 0;
    for (let i = 0; i < 10_000; i++) {
      await connection.pread(1, i, 0, controller.signal);
      most = Math.max(most, getEventListeners(controller.signal, 'abort').length);
    }
    expect(most).toBe(0);
    controller.abort();
    expect(await rejection(connection.pread(1, 0, 0, controller.signal))).toBe(controller.signal.reason);
    await connection.shutdown();
    process.off('warning', warned);
    expect(warned).not.toHaveBeenCalled();
  });
});
