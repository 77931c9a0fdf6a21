import { describe, expect, it } from '@jest/globals';

import { NbdConnectionError, type NbdError, NbdProtocolError, NbdStateError } from '../../lib/index.js';
import { caught, rejection } from '../support/caught.js';
import * as g from '../support/golden.js';
import { openRaw, type OpenOptions, type RawPeer } from '../support/raw-server.js';
import { CALLS } from './calls.js';

interface Way {
  readonly title: string;
  readonly open?: OpenOptions;
  /** Ends the connection; four commands are on the wire, the first a read of 512 bytes at 0 with cookie 1. */
  readonly end: (peer: RawPeer) => void;
  /** Code of the 'close' event's error; also of the command in whose reply the rule was broken. */
  readonly code: string;
  readonly kind: typeof NbdConnectionError | typeof NbdProtocolError;
  readonly says: RegExp;
  /** The cookie whose reply it was. */
  readonly offender?: bigint;
}

const data = g.content(0, 512);
const WAYS: readonly Way[] = [
  {
    ...{ title: 'the end of the stream between replies', end: (peer) => peer.stream.end(), code: 'ENOTCONN' },
    ...{ kind: NbdConnectionError, says: /closed the connection between replies, with 8 commands unanswered/ },
  },
  {
    title: 'the end of the stream in a header',
    end: (peer) => {
      peer.write(g.dataChunk(1, 0, data).subarray(0, 11));
      peer.stream.end();
    },
    ...{ code: 'ENOTCONN', kind: NbdConnectionError, says: /inside the header of a reply/ },
  },
  {
    title: 'the end of the stream in a payload',
    end: (peer) => {
      peer.write(g.dataChunk(1, 0, data).subarray(0, 128));
      peer.stream.end();
    },
    ...{
      code: 'ENOTCONN',
      kind: NbdConnectionError,
      says: /inside a chunk \(NBD_REPLY_TYPE_OFFSET_DATA\), with 412 bytes/,
    },
  },
  {
    title: 'the end of the stream between two chunks',
    end: (peer) => {
      peer.write(g.dataChunk(1, 0, data.subarray(0, 256), 0));
      peer.stream.end();
    },
    ...{ code: 'ENOTCONN', kind: NbdConnectionError, says: /between replies/ },
  },
  {
    title: 'a reset',
    open: { over: 'tcp' },
    end: (peer) => peer.reset(),
    ...{ code: 'ENOTCONN', kind: NbdConnectionError, says: /ECONNRESET/ },
  },
  {
    title: 'a stream that breaks',
    open: { over: 'memory' },
    end: (peer) => void peer.stream.destroy(new Error('broken')),
    ...{ code: 'ENOTCONN', kind: NbdConnectionError, says: /reset by the other end/ },
  },
  {
    title: 'bytes that are not a reply',
    end: (peer) => peer.write('what is this?'),
    ...{ code: 'EPROTO', kind: NbdProtocolError, says: /magic 0x77686174/ },
  },
  {
    title: 'the cookie of nothing, in a simple reply',
    end: (peer) => peer.write(g.simple(99)),
    ...{ code: 'EPROTO', kind: NbdProtocolError, says: /cookie 99/ },
  },
  {
    title: 'the cookie of nothing, in a chunk',
    end: (peer) => peer.write(g.errorChunk(99, 5)),
    ...{ code: 'EPROTO', kind: NbdProtocolError, says: /cookie 99/ },
  },
  {
    title: 'the cookie of a command that waits',
    end: (peer) => peer.write(g.simple(6)),
    ...{ code: 'EPROTO', kind: NbdProtocolError, says: /cookie 6/ },
  },
  {
    title: 'a length that cannot be',
    end: (peer) => peer.write(g.chunk(g.DONE, g.DATA, 1, '', 0xffffffff)),
    ...{ code: 'EPROTO', kind: NbdProtocolError, says: /OFFSET_DATA of 4294967295 bytes/, offender: 1n },
  },
  {
    title: 'data outside the request',
    end: (peer) => peer.write(g.dataChunk(1, 512, data)),
    ...{ code: 'EPROTO', kind: NbdProtocolError, says: /outside the request/, offender: 1n },
  },
  {
    title: 'a reply twice',
    end: (peer) => peer.write(g.chunk(g.DONE, g.NONE, 2), g.chunk(g.DONE, g.NONE, 2)),
    ...{ code: 'EPROTO', kind: NbdProtocolError, says: /cookie 2/ },
  },
  {
    title: 'no reply within requestTimeout',
    open: { client: { requestTimeout: 40 } },
    end: () => undefined,
    ...{ code: 'ETIMEDOUT', kind: NbdConnectionError, says: /no reply within 40 ms \(requestTimeout\)/, offender: 1n },
  },
];

describe.each(WAYS.map((way) => [way.title, way] as const))('a connection that dies of %s', (_title, way) => {
  it('settles every command once, closes once, and refuses what comes later', async () => {
    const { connection, peer } = await openRaw({ ...way.open, client: { maxInFlight: 4, ...way.open?.client } });
    const settled: string[] = [];
    const errors = new Map<string, NbdError>();
    const note = (name: string, error: unknown): void => {
      settled.push(name);
      errors.set(name, error as NbdError);
    };
    const promise = (name: string, pending: Promise<unknown>): void => {
      pending.then(
        () => settled.push(`${name} ok`),
        (error: unknown) => note(name, error),
      );
    };
    const completion = (name: string) => (error: unknown) => {
      if (error === null) settled.push(`${name} ok`);
      else note(name, error);
      return false;
    };
    // On the wire: 1 to 4. Waiting: 5 to 8.
    promise('1', connection.pread(512, 0));
    promise('2', connection.cache(512, 512));
    connection.aioPread(Buffer.alloc(512), 1024, completion('3'));
    connection.aioCache(512, 0, completion('4'));
    promise('5', connection.pwrite(Buffer.alloc(512), 0));
    promise('6', connection.flush());
    connection.aioFlush(completion('7'));
    connection.aioTrim(512, 0, completion('8'));
    await peer.requests(4);
    const states: string[] = [];
    const closes: unknown[] = [];
    connection.on('stateChange', (state) => states.push(state));
    connection.on('close', (error) => closes.push(error));
    const closed = new Promise((resolve) => connection.once('close', resolve));

    way.end(peer);
    await closed;
    await new Promise((resolve) => setImmediate(resolve));

    const cause = closes[0] as NbdError;
    expect(closes).toHaveLength(1);
    expect(states).toEqual(['dead']);
    expect(cause).toBeInstanceOf(way.kind);
    expect(cause).toMatchObject({ code: way.code });
    expect(cause.message).toMatch(way.says);
    expect(connection.aioIsDead()).toBe(true);
    expect(connection.connectionState()).toBe('dead');
    expect(connection.aioInFlight()).toBe(0);

    // Each once. Raw commands are reported at once, those that had not been sent first.
    expect(settled.map((name) => name.slice(0, 1)).sort()).toEqual(['1', '2', '3', '4', '5', '6', '7', '8']);
    expect(settled.filter((name) => '3478'.includes(name))).toEqual(['7', '8', '3', '4']);
    for (const [name, error] of errors) {
      const cookie = BigInt(name);
      if (cookie === way.offender) {
        expect(error).toBe(cause);
        continue;
      }
      expect(error).toBeInstanceOf(NbdConnectionError);
      expect(error).toMatchObject({ code: 'ENOTCONN', cookie });
      expect(error.cause).toBe(cause);
      expect(error.message).toMatch(/the connection ended: /);
    }
    expect(errors.get('1')).toMatchObject({ syscall: 'pread', count: 512n, offset: 0n });
    expect(errors.get('8')?.message).toMatch(/^trim of 512 bytes at offset 0: the connection ended/);

    // Raw commands stay retrievable.
    for (const cookie of [3n, 4n, 7n, 8n]) {
      expect(caught(() => connection.aioCommandCompleted(cookie))).toBe(errors.get(String(cookie)));
      expect(connection.aioCommandCompleted(cookie)).toBe(false);
    }

    for (const call of CALLS) {
      const late = [await rejection(call.promise(connection)), caught(() => call.aio(connection))] as NbdError[];
      for (const error of late) {
        expect(error).toBeInstanceOf(NbdStateError);
        expect(error).toMatchObject({ code: 'EINVAL', cause });
      }
    }
    expect(caught(() => connection.getSize())).toMatchObject({ code: 'EINVAL', cause });

    // The client closes its end, and sends nothing more: no NBD_CMD_DISC.
    await peer.ended;
    expect(peer.buffered).toBe(0);
    connection.close();
    await connection.shutdown();
    expect(connection.aioIsDead()).toBe(true);
    expect(closes).toHaveLength(1);
  });
});

describe('the end of the stream with nothing in flight', () => {
  it('closes the connection in good order', async () => {
    const { connection, peer } = await openRaw();
    const closed = new Promise((resolve) => connection.once('close', resolve));
    peer.stream.end();
    expect(await closed).toBeUndefined();
    expect(connection.aioIsClosed()).toBe(true);
    expect(connection.getSize()).toBe(1048576n);
    expect(await rejection(connection.flush())).toMatchObject({ code: 'EINVAL', name: 'NbdStateError' });
    await peer.ended;
    // Nothing is sent to a server that has gone.
    expect(peer.buffered).toBe(0);
  });

  it('a reset is a death', async () => {
    const { connection, peer } = await openRaw({ over: 'tcp' });
    const closed = new Promise((resolve) => connection.once('close', resolve));
    peer.reset();
    expect(await closed).toMatchObject({ code: 'ENOTCONN', cause: { code: 'ECONNRESET' } });
    expect(connection.aioIsDead()).toBe(true);
  });

  it('bytes out of turn are a death', async () => {
    for (const bytes of [g.simple(0), g.simple(1), Buffer.from('x')]) {
      const { connection, peer } = await openRaw();
      const closed = new Promise((resolve) => connection.once('close', resolve));
      peer.write(bytes);
      if (bytes.length === 1) peer.stream.end();
      expect(await closed).toMatchObject({ code: bytes.length === 1 ? 'ENOTCONN' : 'EPROTO' });
      expect(connection.aioIsDead()).toBe(true);
    }
  });

  it('a reply behind the handshake, before any request, is a death', async () => {
    const { connection, peer } = await openRaw();
    peer.write(g.simple(1));
    const closed = new Promise((resolve) => connection.once('close', resolve));
    expect(await closed).toMatchObject({ code: 'EPROTO' });
    expect(connection.aioIsDead()).toBe(true);
  });
});

describe('a server that is shutting down (ESHUTDOWN)', () => {
  it('fails the command; the others settle; then the client leaves in good order', async () => {
    const { connection, peer } = await openRaw();
    const [bad, good] = [rejection(connection.cache(512, 0)), connection.pread(512, 0)];
    const requests = await peer.requests(2);
    peer.write(g.simple(requests[0]!.cookie, 108));
    expect(await bad).toMatchObject({ code: 'ESHUTDOWN', name: 'NbdCommandError' });
    expect(await rejection(connection.flush())).toMatchObject({ code: 'EINVAL' });
    peer.answer(requests[1]!);
    expect((await good).length).toBe(512);
    expect(await peer.request()).toMatchObject({ type: g.CMD.DISC, offset: 0n, length: 0, flags: 0 });
    const closed = new Promise((resolve) => connection.once('close', resolve));
    peer.stream.end();
    expect(await closed).toBeUndefined();
    expect(connection.aioIsClosed()).toBe(true);
  });
});
