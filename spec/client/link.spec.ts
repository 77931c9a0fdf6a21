import { describe, expect, it } from '@jest/globals';

import { Link, type ByteConsumer } from '../../lib/client/link.js';

/** A phase that notes what it is given. */
class Noting implements ByteConsumer {
  readonly name: string;
  readonly calls: string[];
  readonly buffer = Buffer.alloc(16);
  #failure: unknown = null;

  constructor(name: string, calls: string[]) {
    this.name = name;
    this.calls = calls;
  }

  failWith(failure: unknown): void {
    this.#failure = failure;
  }

  target(): Uint8Array {
    return this.buffer;
  }

  advance(length: number): void {
    this.#note(`advance ${this.buffer.toString('latin1', 0, length)}`);
  }

  push(chunk: Uint8Array): void {
    this.#note(`push ${Buffer.from(chunk).toString()}`);
  }

  #note(call: string): void {
    this.calls.push(`${this.name}: ${call}`);
    if (this.#failure !== null) throw this.#failure;
  }
}

function open(): { link: Link; first: Noting; second: Noting; calls: string[] } {
  const calls: string[] = [];
  const idle = (): void => undefined;
  const transport = {
    ...{ description: 'x', start: idle, write: idle, pause: idle, resume: idle },
    ...{ end: idle, destroy: idle, ref: idle, unref: idle },
  };
  const first = new Noting('first', calls);
  const link = new Link(transport, first, {
    failed: (error) => void calls.push(`failed ${String(error)}`),
    ended: () => void calls.push('ended'),
    closed: (error) => void calls.push(`closed ${String(error)}`),
  });
  return { link, first, second: new Noting('second', calls), calls };
}

describe('Link', () => {
  it('hands bytes to the phase that it is in, and counts them', () => {
    const { link, first, second, calls } = open();
    expect(link.target()).toBe(first.buffer);
    first.buffer.write('abc');
    link.advance(3);
    link.push(Buffer.from('defg'));
    link.consumer = second;
    expect(link.target()).toBe(second.buffer);
    second.buffer.write('hi');
    link.advance(2);
    expect(calls).toEqual(['first: advance abc', 'first: push defg', 'second: advance hi']);
    expect(link.bytesReceived).toBe(9);
  });

  it('pushes to a phase what landed in the buffer of the one before', () => {
    const { link, first, second, calls } = open();
    link.target();
    link.consumer = second;
    first.buffer.write('late');
    link.advance(4);
    expect(calls).toEqual(['second: push late']);
  });

  it('turns whatever a phase throws into the end of the connection', () => {
    const { link, first, calls } = open();
    first.failWith(new Error('broken'));
    link.target();
    expect(() => {
      link.advance(0);
      link.push(Buffer.from('x'));
    }).not.toThrow();
    expect(calls).toEqual(['first: advance ', 'failed Error: broken', 'first: push x', 'failed Error: broken']);
  });

  it('reports the end and the close', () => {
    const { link, calls } = open();
    link.end();
    link.close(null);
    link.close(new Error('x'));
    expect(calls).toEqual(['ended', 'closed null', 'closed Error: x']);
  });
});
