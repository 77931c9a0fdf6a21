// The driver of handshakes, on coroutines of its own.

import { describe, expect, it } from '@jest/globals';

import { HandshakeDriver } from '../../lib/protocol/handshake/driver.js';
import { type Handshake, START_TLS } from '../../lib/protocol/handshake/effects.js';

interface Talk {
  readonly driver: HandshakeDriver;
  readonly events: string[];
  isBlocked: boolean;
}

/** Runs a handshake and notes everything that the driver does; `onWrite` is called for each write. */
function talk(handshake: Handshake<unknown>, onWrite: (talk: Talk) => void = () => undefined): Talk {
  const events: string[] = [];
  const driver = new HandshakeDriver({
    write: (bytes, early) => {
      events.push(`write ${Buffer.from(bytes).toString()}, ${early} early`);
      onWrite(result);
    },
    startTls: () => void events.push('start TLS'),
    plaintextBeforeTls: (early) => new Error(`${early} bytes of plaintext`),
    isBlocked: () => result.isBlocked,
  });
  const result: Talk = { driver, events, isBlocked: false };
  driver.run(
    handshake,
    (value) => void events.push(`done ${String(value)}`),
    (error) => void events.push(`failed: ${(error as Error).message}`),
  );
  return result;
}

/** Reads `lengths`, answers each with what it read, and returns the number of reads. */
function* echo(...lengths: number[]): Handshake<number> {
  for (const length of lengths) yield Buffer.from(yield length);
  return lengths.length;
}

const rest = (driver: HandshakeDriver): string => Buffer.concat(driver.takeRest()).toString();

describe('HandshakeDriver', () => {
  it.each([[['abcdef']], [['a', 'bc', 'def']], [['abc', 'def']], [['', 'abcde', 'f']]])(
    'reads across chunks: %j',
    (chunks) => {
      const { driver, events } = talk(echo(1, 2, 2));
      for (const chunk of chunks) driver.push(Buffer.from(chunk));
      expect(events.map((event) => event.replace(/, .*/, ''))).toEqual(['write a', 'write bc', 'write de', 'done 3']);
      expect(driver.isRunning).toBe(false);
    },
  );

  it('gives what lies behind the end to whoever takes it, once', () => {
    const { driver } = talk(echo(2));
    const chunk = Buffer.from('abcdef');
    driver.push(chunk);
    const [behind, ...more] = driver.takeRest();
    expect(behind?.toString()).toBe('cdef');
    // A part of the chunk that arrived, not a copy.
    expect(behind?.buffer).toBe(chunk.buffer);
    expect(more).toEqual([]);
    expect(driver.takeRest()).toEqual([]);
  });

  it('gives what it has of a read that is not complete', () => {
    const { driver } = talk(echo(8));
    driver.push(Buffer.from('SSH'));
    expect(rest(driver)).toBe('SSH');
  });

  it('reports how many bytes are early', () => {
    const { driver, events } = talk(echo(1, 1));
    driver.push(Buffer.from('abcd'));
    expect(events).toEqual(['write a, 3 early', 'write b, 2 early', 'done 2']);
  });

  it('completes no read while its host is blocked', () => {
    const talking = talk(echo(1, 1, 1), (each) => (each.isBlocked = true));
    const { driver, events } = talking;
    driver.push(Buffer.from('ab'));
    driver.push(Buffer.from('c'));
    expect(events).toEqual(['write a, 1 early']);
    for (let i = 0; i < 2; i++) {
      talking.isBlocked = false;
      driver.resume();
    }
    expect(events.map((event) => event.replace(/, .*/, ''))).toEqual(['write a', 'write b', 'write c', 'done 3']);
  });

  describe('TLS', () => {
    function* secure(): Handshake<string> {
      yield 1;
      yield START_TLS;
      return (yield 1).toString();
    }

    it('goes on only when the session is established', () => {
      const { driver, events } = talk(secure());
      driver.push(Buffer.from('a'));
      driver.resume();
      expect(events).toEqual(['start TLS']);
      driver.secured();
      driver.push(Buffer.from('b'));
      expect(events).toEqual(['start TLS', 'done b']);
    });

    it('V10 does not start behind plaintext', () => {
      const { driver, events } = talk(secure());
      driver.push(Buffer.from('ab'));
      driver.secured();
      expect(events).toEqual(['failed: 1 bytes of plaintext']);
    });
  });

  it.each<[string, (driver: HandshakeDriver) => void, string[]]>([
    ['stop() without a call back', (driver) => driver.stop(), []],
    ['fail() with its error', (driver) => driver.fail(new Error('over')), ['failed: over']],
  ])('ends by %s, also while it writes, and then ignores bytes', (_name, end, events) => {
    const idle = talk(echo(1, 1));
    end(idle.driver);
    idle.driver.push(Buffer.from('ab'));
    expect(idle.events).toEqual(events);
    expect(rest(idle.driver)).toBe('');

    const writing = talk(echo(1, 1), (each) => end(each.driver));
    writing.driver.push(Buffer.from('ab'));
    expect(writing.events).toEqual(['write a, 1 early', ...events]);
  });

  it.each(['write', 'done'])('fails with what %s throws', (where) => {
    const events: string[] = [];
    const fail = (): never => {
      throw new Error(`no ${where}`);
    };
    const nothing = (): void => undefined;
    const driver = new HandshakeDriver({
      write: where === 'write' ? fail : nothing,
      startTls: nothing,
      plaintextBeforeTls: () => new Error(),
    });
    driver.run(echo(1), where === 'done' ? fail : nothing, (error) => void events.push((error as Error).message));
    driver.push(Buffer.from('a'));
    expect(events).toEqual([`no ${where}`]);
    expect(driver.isRunning).toBe(false);
  });

  it('runs one handshake after the other, with what is left of the bytes', () => {
    const { driver, events } = talk(echo(1));
    driver.push(Buffer.from('a'));
    driver.run(echo(1), (value) => void events.push(`again ${value}`), fail);
    driver.push(Buffer.from('b'));
    expect(events.slice(1)).toEqual(['done 1', 'write b, 0 early', 'again 1']);
  });
});

function fail(error: unknown): never {
  throw error as Error;
}
