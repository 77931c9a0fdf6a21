import { constants } from 'node:os';
import { inspect } from 'node:util';

import { describe, expect, it, jest } from '@jest/globals';

import * as errors from '../../lib/errors.js';

const CLASSES = [
  'NbdStrictError',
  'NbdCommandError',
  'NbdOptionError',
  'NbdProtocolError',
  'NbdConnectionError',
  'NbdStateError',
  'NbdQueueFullError',
] as const;

describe.each(CLASSES)('%s', (name) => {
  const error = new errors[name]('cache: no', { code: 'ENOSPC', syscall: 'cache' });

  it('is an NbdError and an Error, under its own name', () => {
    expect(error).toBeInstanceOf(errors[name]);
    expect(error).toBeInstanceOf(errors.NbdError);
    expect(error).toBeInstanceOf(Error);
    expect(error.name).toBe(name);
    expect(String(error)).toBe(`${name}: cache: no`);
    expect(error.stack).toContain('cache: no');
  });

  it('is not an instance of the other classes', () => {
    for (const other of CLASSES) if (other !== name) expect(error).not.toBeInstanceOf(errors[other]);
  });

  it('is recognised by another copy of the package, and only as what it is', async () => {
    jest.resetModules();
    const copy = await import('../../lib/errors.js');
    expect(copy[name]).not.toBe(errors[name]);
    expect(error).toBeInstanceOf(copy[name]);
    expect(error).toBeInstanceOf(copy.NbdError);
    for (const other of CLASSES) if (other !== name) expect(error).not.toBeInstanceOf(copy[other]);
    const theirs = new copy[name]('x', { code: 'EIO' });
    expect(theirs).toBeInstanceOf(errors[name]);
  });
});

describe('NbdError', () => {
  it('has the details that it was given and no others', () => {
    const cause = new Error('why');
    const error = new errors.NbdError('text', {
      code: 'EIO',
      syscall: 'pread',
      cookie: 7n,
      offset: 4096n,
      count: 512n,
      exportName: 'disk',
      serverMessage: 'bad sector',
      sent: true,
      cause,
    });
    expect(Object.fromEntries(Object.entries(error))).toEqual({
      ...{ code: 'EIO', errno: 5, syscall: 'pread', cookie: 7n, offset: 4096n, count: 512n },
      ...{ exportName: 'disk', serverMessage: 'bad sector', sent: true },
    });
    expect(error.cause).toBe(cause);
    // As in any Error, the cause is shown but not enumerated.
    expect(Object.keys(error)).not.toContain('cause');
    const bare = new errors.NbdError('text', { code: 'EIO', syscall: undefined });
    expect(Object.keys(bare).sort()).toEqual(['code', 'errno']);
    expect('cause' in bare).toBe(false);
    expect('cookie' in bare).toBe(false);
  });

  it('shows its code and range when it is printed', () => {
    const shown = inspect(new errors.NbdCommandError('cache failed', { code: 'ENOSPC', count: 1n }));
    expect(shown).toContain('NbdCommandError: cache failed');
    expect(shown).toContain("code: 'ENOSPC'");
    expect(shown).toContain('count: 1n');
  });

  it('is not matched by what merely looks like it', () => {
    for (const value of [null, undefined, 'NbdError', new Error('x'), { code: 'EIO', name: 'NbdError' }, () => 0]) {
      expect(value instanceof errors.NbdError).toBe(false);
    }
  });

  it("can be extended: a subclass's own instanceof is not fooled by the brand", () => {
    class MyError extends errors.NbdCommandError {}
    const mine = new MyError('x', { code: 'EIO' });
    expect(mine).toBeInstanceOf(MyError);
    expect(mine).toBeInstanceOf(errors.NbdCommandError);
    expect(new errors.NbdCommandError('x', { code: 'EIO' })).not.toBeInstanceOf(MyError);
  });
});

describe('errnoOf', () => {
  it.each(['EPERM', 'ENOENT', 'EIO', 'EAGAIN', 'ENOMEM', 'EINVAL', 'ENOSPC', 'ERANGE', 'EPROTO', 'ENOTCONN'] as const)(
    "%s is this system's number",
    (code) => {
      expect(errors.errnoOf(code)).toBe(constants.errno[code]);
      expect(new errors.NbdError('x', { code }).errno).toBe(constants.errno[code]);
    },
  );

  it.each([
    ['ESHUTDOWN', 108],
    ['ENOTSUP', 95],
    ['ENOTFOUND', 3008],
    ['ESTALE', 116],
    ['ENOTHING', 22],
  ])('%s is %d', (code, number) => {
    const known = (constants.errno as Record<string, number | undefined>)[code];
    expect(errors.errnoOf(code)).toBe(known ?? number);
  });
});
