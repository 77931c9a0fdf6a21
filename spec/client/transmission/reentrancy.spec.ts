// Any public method from any callback, listener, subscriber or debug function, at every step of a connection's life:
// every call settles exactly once, and a connection that has ended stays so.

import { afterEach, describe, expect, it } from '@jest/globals';
import { channel } from 'node:diagnostics_channel';

import { type NbdConnection, NbdError, SHUTDOWN_ABANDON_PENDING } from '../../../lib/index.js';
import * as g from '../../support/golden.js';
import { memoryPeer, newConnection, type RawPeer } from '../../support/raw-server.js';

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});

/** What is done from within. */
type Action = (connection: NbdConnection, controller: AbortController) => void;
const ACTIONS: Readonly<Record<string, Action>> = {
  close: (c) => c.close(),
  shutdown: (c) => void c.shutdown(),
  'shutdown, abandoning': (c) => void c.shutdown(SHUTDOWN_ABANDON_PENDING),
  abort: (_, controller) => controller.abort('enough'),
  'abort and close': (c, controller) => {
    controller.abort('enough');
    c.close();
  },
  'issue more and close': (c) => {
    if (c.connectionState() === 'ready' || c.connectionState() === 'processing') c.pread(512, 0).catch(() => undefined);
    c.close();
  },
  disconnect: (c) => {
    // Refused in any other state, and the second time.
    try {
      c.aioDisconnect();
    } catch (error) {
      expect(error).toBeInstanceOf(NbdError);
    }
  },
  'look around': (c) => {
    c.connectionState();
    if (c.connectionState() !== 'created' && !c.aioIsConnecting() && !c.aioIsNegotiating()) {
      expect(c.aioInFlight()).toBeGreaterThanOrEqual(0);
    }
    c.statsBytesSent();
    c.ref().unref().ref();
  },
};

/** Where from: arranges that `act` runs once, at that step. */
type Place = (connection: NbdConnection, act: () => void) => void;
const onState =
  (wanted: string): Place =>
  (connection, act) =>
    void connection.on('stateChange', (state) => {
      if (state === wanted) act();
    });
const onChannel =
  (name: string): Place =>
  (_connection, act) => {
    const listener = (): void => act();
    channel(name).subscribe(listener);
    cleanups.push(() => channel(name).unsubscribe(listener));
  };
const onDebug =
  (pattern: RegExp, how: 'callback' | 'event'): Place =>
  (connection, act) => {
    connection.setDebug(true);
    const listener = (context: string, message: string): void => {
      if (pattern.test(`${context} ${message}`)) act();
    };
    if (how === 'callback') connection.setDebugCallback(listener);
    else connection.on('debug', listener);
  };
const PLACES: Readonly<Record<string, Place>> = {
  'stateChange connecting': onState('connecting'),
  'stateChange ready': onState('ready'),
  'stateChange closed': onState('closed'),
  'stateChange dead': onState('dead'),
  drain: (c, act) => void c.on('drain', act),
  'the close event': (c, act) => void c.on('close', act),
  'nbd:command:start': onChannel('nbd:command:start'),
  'nbd:command:end': onChannel('nbd:command:end'),
  'nbd:command:error': onChannel('nbd:command:error'),
  'nbd:connection:open': onChannel('nbd:connection:open'),
  'nbd:connection:close': onChannel('nbd:connection:close'),
  'the debug callback, of the first message': onDebug(/./, 'callback'),
  'the debug callback, of the connect': onDebug(/^connect /, 'callback'),
  'the debug callback, of connecting': onDebug(/-> connecting/, 'callback'),
  'the debug callback, of a command that enters': onDebug(/enter: /, 'callback'),
  'the debug event, of a command that enters': onDebug(/enter: /, 'event'),
  'the debug event, of a command that leaves': onDebug(/leave: /, 'event'),
};

/** Every kind of call, and what each settles with, in a list. */
function issueAll(connection: NbdConnection, signal: AbortSignal, act: () => void): Settled {
  const settled = new Settled();
  const { promise, raw } = settled;
  promise(() => connection.pread(512, 0, 0, signal));
  promise(() => connection.preadInto(Buffer.alloc(512), 512, 0, signal));
  raw((done) => connection.aioPread(Buffer.alloc(300_000), 0, done));
  promise(() => connection.preadStructured(512, 0, act, 0, signal));
  promise(() => connection.pwrite(Buffer.alloc(512), 0, 0, signal));
  promise(() => connection.pwrite(Buffer.alloc(100_000), 0, 0, signal));
  raw((done) => connection.aioPwrite(Buffer.alloc(512), 0, done));
  promise(() => connection.blockStatus(512, 0, act, 0, signal));
  raw((done) => connection.aioFlush(done));
  promise(() => connection.cache(512, 0, 0, signal));
  promise(() => connection.zero(512, 0, 0, signal));
  return settled;
}

class Settled {
  expected = 0;
  /** Times that each call has settled, in the order of the calls. */
  readonly counts: number[] = [];
  readonly #all: Promise<void>[] = [];

  readonly promise = (call: () => Promise<unknown>): void => {
    const index = this.#begin();
    this.#all.push(
      call().then(
        () => this.#note(index),
        () => this.#note(index),
      ),
    );
  };

  readonly raw = (call: (done: () => boolean) => bigint): void => {
    const index = this.#begin();
    let hasReturned = false;
    const finished = new Promise<void>((resolve, reject) => {
      const done = (): boolean => {
        this.#note(index);
        if (hasReturned) resolve();
        else reject(new Error('the completion callback ran before its call had returned'));
        return true;
      };
      try {
        call(done);
      } catch (error) {
        // Refused: the callback must not run.
        expect(error).toBeInstanceOf(NbdError);
        this.#note(index);
        resolve();
      }
      hasReturned = true;
    });
    this.#all.push(finished);
  };

  async done(): Promise<void> {
    await Promise.all(this.#all);
    // Whoever would settle a second time does it soon.
    for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
    expect(this.counts).toEqual(Array.from({ length: this.expected }, () => 1));
  }

  #begin(): number {
    this.counts.push(0);
    return this.expected++;
  }

  #note(index: number): void {
    this.counts[index] = (this.counts[index] ?? 0) + 1;
  }
}

async function serve(peer: RawPeer): Promise<void> {
  try {
    await peer.handshake({ contexts: { 1: 'base:allocation' } });
    await peer.serve();
  } catch {
    // The client has gone.
  }
  peer.stream.end();
}

/** A whole life with the action at one place of it. */
async function live(place: Place, action: Action, maxInFlight: number): Promise<void> {
  const connection = newConnection({ metaContexts: ['base:allocation'], maxInFlight, closeTimeout: 1000 });
  const controller = new AbortController();
  const { stream, peer } = memoryPeer();
  let acted = 0;
  const act = (): void => {
    if (acted++ === 0) action(connection, controller);
  };
  const states: string[] = [];
  let closes = 0;
  connection.on('stateChange', (state) => void states.push(state));
  connection.on('close', () => closes++);
  place(connection, act);
  void serve(peer);
  const connected = await connection.connectSocket(stream, controller.signal).then(
    () => true,
    () => false,
  );
  // What has connected may have been ended since, but never the other way round.
  if (!connected) expect(['closed', 'dead']).toContain(connection.connectionState());
  const settled =
    connected && !controller.signal.aborted ? issueAll(connection, controller.signal, () => undefined) : new Settled();
  await settled.done();
  await connection.shutdown();
  expect(closes).toBe(1);
  const end = states.findIndex((state) => state === 'closed' || state === 'dead');
  expect(states.slice(end)).toHaveLength(1);
  await new Promise((resolve) => setImmediate(resolve));
  expect(states.slice(end)).toHaveLength(1);
  if (connected) expect(connection.aioInFlight()).toBe(0);
  expect(stream.destroyed).toBe(true);
}

describe.each(Object.entries(PLACES))('from %s', (_place, place) => {
  it.each(Object.entries(ACTIONS))('%s', async (_action, action) => {
    await live(place, action, 64);
    // With most of the commands in the line.
    await live(place, action, 2);
  });
});

describe('from a callback of a command', () => {
  const CALLBACKS: Readonly<Record<string, (c: NbdConnection, act: () => void) => void>> = {
    completion: (c, act) => void c.aioFlush(act),
    'completion of a failed write': (c, act) => {
      const bytes = new Uint8Array(512);
      c.aioPwrite(bytes, 0, act);
      structuredClone(bytes.buffer, { transfer: [bytes.buffer] });
    },
    chunk: (c, act) => void c.aioPreadStructured(Buffer.alloc(512), 0, act),
    extent: (c, act) => void c.aioBlockStatus(512, 0, act),
    continuation: (c, act) => void c.flush().then(act, act),
  };
  describe.each(Object.entries(CALLBACKS))('%s', (_callback, arrange) => {
    it.each(Object.entries(ACTIONS))('%s', async (_action, action) => {
      for (const maxInFlight of [64, 2]) {
        const connection = newConnection({ metaContexts: ['base:allocation'], maxInFlight, closeTimeout: 1000 });
        const controller = new AbortController();
        const { stream, peer } = memoryPeer();
        void serve(peer);
        await connection.connectSocket(stream);
        let acted = 0;
        const act = (): void => {
          if (acted++ === 0) action(connection, controller);
        };
        arrange(connection, act);
        const settled = issueAll(connection, controller.signal, act);
        await settled.done();
        await connection.shutdown();
        expect(acted).toBeGreaterThan(0);
        expect(connection.aioInFlight()).toBe(0);
      }
    });
  });
});

describe('an abort listener that closes', () => {
  it.each(['before', 'after'])('and was registered %s ours', async (when) => {
    const connection = newConnection({ maxInFlight: 2 });
    const { stream, peer } = memoryPeer();
    const controller = new AbortController();
    if (when === 'before') controller.signal.addEventListener('abort', () => connection.close());
    await Promise.all([connection.connectSocket(stream), peer.handshake()]);
    const settled = issueAll(connection, controller.signal, () => undefined);
    if (when === 'after') controller.signal.addEventListener('abort', () => connection.close());
    controller.abort('enough');
    await settled.done();
    expect(connection.aioInFlight()).toBe(0);
  });
});

describe('an argument that ends the connection while it is looked at', () => {
  it('leaves no call pending', async () => {
    const connection = newConnection({ metaContexts: ['base:allocation'] });
    const { stream, peer } = memoryPeer();
    const closing = new Proxy(['base:allocation'], {
      get: (target, key, receiver) => {
        connection.close();
        return Reflect.get(target, key, receiver) as unknown;
      },
    });
    await Promise.all([
      connection.connectSocket(stream),
      peer.handshake({ extended: true, contexts: { 1: 'base:allocation' }, flags: g.ALL_FLAGS | 0x1000 }),
    ]);
    await expect(connection.blockStatusFilter(512, 0, closing, () => undefined)).rejects.toMatchObject({
      code: 'EINVAL',
    });
    const other = newConnection();
    const argv = new Proxy(['true'], { get: (target, key) => (other.close(), Reflect.get(target, key) as unknown) });
    await expect(other.connectCommand(argv)).rejects.toMatchObject({ code: 'EINVAL' });
    expect(other.connectionState()).toBe('closed');
  });
});

describe('option mode', () => {
  it.each(['close', 'shutdown'] as const)(
    '%s from the debug callback, as an option enters: it rejects',
    async (how) => {
      const connection = newConnection({ optMode: true, connectTimeout: 0 });
      const { stream, peer } = memoryPeer();
      void serve(peer);
      await connection.connectSocket(stream);
      connection.setDebug(true);
      connection.setDebugCallback((context, message) => {
        if (context === 'optList' && message === 'enter') void connection[how]();
      });
      await expect(connection.optList()).rejects.toMatchObject({ code: 'EINVAL' });
      expect(connection.connectionState()).toBe('closed');
    },
  );

  it('close() when the export has opened: optGo rejects', async () => {
    const connection = newConnection({ optMode: true });
    const { stream, peer } = memoryPeer();
    void serve(peer);
    await connection.connectSocket(stream);
    connection.on('stateChange', (state) => {
      if (state === 'ready') connection.close();
    });
    await expect(connection.optGo()).rejects.toMatchObject({ code: 'ENOTCONN' });
  });
});

describe('a connection that could not be made', () => {
  it('is tried again from its own stateChange to created', async () => {
    const connection = newConnection();
    const { stream, peer } = memoryPeer();
    void serve(peer);
    let again = Promise.resolve();
    connection.on('stateChange', (state) => {
      if (state === 'created') again = connection.connectSocket(stream);
    });
    await expect(connection.connectTcp('127.0.0.1', 1)).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    await again;
    expect(connection.connectionState()).toBe('ready');
    await connection.shutdown();
    expect(connection.connectionState()).toBe('closed');
  });

  it('and is closed from it stays closed', async () => {
    const connection = newConnection();
    connection.on('stateChange', (state) => {
      if (state === 'created') connection.close();
    });
    await expect(connection.connectTcp('127.0.0.1', 1)).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    expect(connection.connectionState()).toBe('closed');
  });
});
