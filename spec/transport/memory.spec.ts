import { type Duplex } from 'node:stream';

import { describe, expect, it } from '@jest/globals';

import { duplexPair } from '../../lib/transport/memory.js';

const once = (stream: Duplex, event: string): Promise<unknown> =>
  new Promise((resolve) => stream.once(event, (value?: unknown) => resolve(value)));

function collect(stream: Duplex): { bytes: () => string; chunks: Buffer[] } {
  const chunks: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  return { bytes: () => Buffer.concat(chunks).toString(), chunks };
}

describe('duplexPair', () => {
  it('carries bytes both ways, in order', async () => {
    const [a, b] = duplexPair();
    const [atA, atB] = [collect(a), collect(b)];
    a.write('one');
    b.write('uno');
    a.write('two');
    a.end('three');
    b.end();
    await Promise.all([once(a, 'close'), once(b, 'close')]);
    expect([atA.bytes(), atB.bytes()]).toEqual(['uno', 'onetwothree']);
  });

  it('copies: the writer may change its buffer after the callback', async () => {
    const [a, b] = duplexPair();
    const atB = collect(b);
    const bytes = Buffer.from('abc');
    await new Promise((resolve) => a.write(bytes, resolve));
    bytes.fill(0);
    await new Promise((resolve) => setImmediate(resolve));
    expect(atB.bytes()).toBe('abc');
  });

  it('loses nothing when a peer replies to several buffers at once, and is answered at once', async () => {
    const [a, b] = duplexPair();
    const atB = collect(b);
    // What b sends on the first bytes makes a write while its own corked buffers are being delivered.
    b.once('data', () => b.write('reply'));
    a.once('data', () => a.write('answer'));
    a.cork();
    a.write('one');
    a.write('two');
    a.uncork();
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
    expect(atB.bytes()).toBe('onetwoanswer');
  });

  it('never calls the writer back before write() has returned', () => {
    const [a, b] = duplexPair();
    collect(b);
    let told = false;
    a.write('x', () => (told = true));
    expect(told).toBe(false);
  });

  it('holds the writer back until the reader reads', async () => {
    const [a, b] = duplexPair();
    let told = 0;
    const block = Buffer.alloc(512 * 1024);
    for (let i = 0; i < 8; i++) a.write(block, () => told++);
    await new Promise((resolve) => setTimeout(resolve, 10));
    expect(told).toBeLessThan(8);
    let read = 0;
    b.on('data', (chunk: Buffer) => (read += chunk.length));
    while (told < 8) await new Promise((resolve) => setImmediate(resolve));
    expect(read).toBe(8 * block.length);
  });

  it('an end is an end of that direction only', async () => {
    const [a, b] = duplexPair();
    const atA = collect(a);
    collect(b);
    a.end();
    await once(b, 'end');
    b.write('still here');
    await new Promise((resolve) => setImmediate(resolve));
    expect(atA.bytes()).toBe('still here');
  });

  it('destroy ends the other; with an error it is a reset', async () => {
    const [a, b] = duplexPair();
    collect(b);
    const ended = once(b, 'end');
    a.destroy();
    await ended;
    const [c, d] = duplexPair();
    c.on('error', () => undefined);
    const failed = once(d, 'error');
    c.destroy(new Error('mine'));
    expect(await failed).toMatchObject({ code: 'ECONNRESET' });
    expect(d.destroyed).toBe(true);
  });

  it('a write to a peer that has gone fails with EPIPE', async () => {
    const [a, b] = duplexPair();
    const failed = once(a, 'error');
    b.destroy();
    a.write('x');
    expect(await failed).toMatchObject({ code: 'EPIPE' });
  });

  it('a writer that is held back is let go when the reader is destroyed', async () => {
    const [a, b] = duplexPair();
    a.on('error', () => undefined);
    const settled = new Promise((resolve) => {
      for (let i = 0; i < 4; i++) a.write(Buffer.alloc(1024 * 1024), resolve);
    });
    b.destroy();
    await settled;
  });
});
