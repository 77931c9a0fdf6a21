import { Duplex } from 'node:stream';

import { describe, expect, it } from '@jest/globals';

import { duplexPair } from '../../lib/transport/memory.js';
import { StreamTransport } from '../../lib/transport/stream.js';
import { Recording } from './recording.js';

function open(): { transport: StreamTransport; receiver: Recording; stream: Duplex; other: Duplex } {
  const [stream, other] = duplexPair();
  other.on('error', () => undefined);
  return { transport: new StreamTransport(stream, 'a pair'), receiver: new Recording(), stream, other };
}

const read = async (stream: Duplex, length: number): Promise<string> => {
  let all = '';
  while (all.length < length) {
    const chunk = stream.read() as Buffer | null;
    if (chunk === null) await new Promise((resolve) => stream.once('readable', resolve));
    else all += chunk.toString();
  }
  return all;
};

/** A stream that does nothing by itself. */
const idle = (write?: (chunks: Buffer[]) => void): Duplex =>
  new Duplex({
    read: () => undefined,
    writev: (chunks, done) => {
      write?.(chunks.map(({ chunk }) => chunk as Buffer));
      done();
    },
  });

describe('StreamTransport', () => {
  it('delivers what came before start() and after it', async () => {
    const { transport, receiver, other } = open();
    other.write('early ');
    await new Promise((resolve) => setImmediate(resolve));
    transport.start(receiver);
    other.write('late');
    await receiver.until(() => receiver.bytes === 'early late');
    expect(new Set(receiver.calls)).toEqual(new Set(['push']));
    expect(transport.description).toBe('a pair');
  });

  it('writes buffers in order with one writev, and calls back once, later', async () => {
    const writes: string[][] = [];
    const transport = new StreamTransport(
      idle((chunks) => writes.push(chunks.map(String))),
      'x',
    );
    let told = 0;
    await new Promise<void>((resolve) => {
      transport.write([Buffer.from('a'), Buffer.from('b'), Buffer.from('c')], () => {
        told++;
        resolve();
      });
      expect(told).toBe(0);
    });
    await new Promise<void>((resolve) => transport.write([Buffer.from('d')], resolve));
    expect(writes).toEqual([['a', 'b', 'c'], ['d']]);
    expect(told).toBe(1);
  });

  it('does not call back for a write that was lost', async () => {
    for (const buffers of [[Buffer.from('x')], [Buffer.from('x'), Buffer.from('y')]]) {
      const { transport, receiver, other } = open();
      transport.start(receiver);
      other.destroy();
      let told = false;
      transport.write(buffers, () => (told = true));
      await receiver.closed();
      expect(told).toBe(false);
    }
  });

  it('end() half-closes behind what was written', async () => {
    const { transport, receiver, other } = open();
    transport.start(receiver);
    transport.write([Buffer.from('last words')], () => undefined);
    transport.end();
    transport.end();
    expect(await read(other, 10)).toBe('last words');
    other.write('answer');
    await receiver.until(() => receiver.bytes === 'answer');
    other.end();
    await receiver.closed();
    expect(receiver.calls).toEqual(['push', 'end', 'close']);
    expect(receiver.error).toBeNull();
  });

  it('reports the end of the peer, then the close, once each', async () => {
    const { transport, receiver, other } = open();
    transport.start(receiver);
    other.end('x');
    await receiver.until(() => receiver.calls.includes('end'));
    transport.destroy();
    transport.destroy();
    await receiver.closed();
    await new Promise((resolve) => setImmediate(resolve));
    expect(receiver.calls).toEqual(['push', 'end', 'close']);
  });

  it('destroy() is followed by close(null)', async () => {
    const { transport, receiver } = open();
    transport.start(receiver);
    transport.destroy();
    await receiver.closed();
    expect(receiver.error).toBeNull();
    transport.end();
  });

  it('a stream that breaks is closed with its first error', async () => {
    const stream = idle();
    const transport = new StreamTransport(stream, 'x');
    const receiver = new Recording();
    transport.start(receiver);
    const first = new Error('first');
    stream.emit('error', first);
    stream.destroy(new Error('second'));
    await receiver.closed();
    expect(receiver.error).toBe(first);
    expect(receiver.calls).toEqual(['close']);
  });

  it('an error before start() does not end the process, and is reported at the start', async () => {
    const stream = idle();
    const transport = new StreamTransport(stream, 'x');
    const mine = new Error('mine');
    stream.destroy(mine);
    await new Promise((resolve) => stream.once('close', resolve));
    const receiver = new Recording();
    transport.start(receiver);
    expect(receiver.calls).toEqual([]);
    await receiver.closed();
    expect(receiver.error).toBe(mine);
  });

  it('refuses a stream that hands out text', async () => {
    const { transport, receiver, stream, other } = open();
    stream.setEncoding('utf8');
    transport.start(receiver);
    other.write('x');
    await receiver.closed();
    expect(receiver.error).toBeInstanceOf(TypeError);
    expect(receiver.bytes).toBe('');
  });

  it('pause() and resume() hold the peer back', async () => {
    const { transport, receiver, other } = open();
    transport.start(receiver);
    transport.pause();
    other.write('x');
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(receiver.bytes).toBe('');
    transport.resume();
    await receiver.until(() => receiver.bytes === 'x');
  });

  it('ref() and unref() reach the stream, where it has them', () => {
    const calls: string[] = [];
    const stream = Object.assign(idle(), { ref: () => calls.push('ref'), unref: () => calls.push('unref') });
    const transport = new StreamTransport(stream, 'x');
    transport.unref();
    transport.ref();
    expect(calls).toEqual(['unref', 'ref']);
    const { transport: plain } = open();
    expect(() => {
      plain.ref();
      plain.unref();
    }).not.toThrow();
  });

  it('detach() hands the stream over without its listeners', async () => {
    const { transport, receiver, stream, other } = open();
    transport.start(receiver);
    expect(transport.detach()).toBe(stream);
    expect(['data', 'end', 'error', 'close'].map((event) => stream.listenerCount(event))).toEqual([
      ...[0, 0, 0, expect.any(Number)],
    ]);
    stream.on('data', () => undefined);
    other.end('x');
    await new Promise((resolve) => stream.once('end', resolve));
    expect(receiver.calls).toEqual([]);
  });

  it('asks for a farewell when the end is not its own, and tells what that says', async () => {
    const why = new Error('the program died');
    const { transport, receiver, other } = open();
    const asked: (Error | null)[] = [];
    transport.explainEnd = (error) => {
      asked.push(error);
      return Promise.resolve(why);
    };
    transport.start(receiver);
    other.end();
    await receiver.closed();
    expect(asked).toEqual([null]);
    expect(receiver.error).toBe(why);
    expect(receiver.calls).toEqual(['close']);
  });
});
