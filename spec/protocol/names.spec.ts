import { describe, expect, it } from '@jest/globals';

import * as names from '../../lib/protocol/names.js';
import { WIRE_ERRORS } from '../support/golden.js';

describe('names of numbers', () => {
  it.each([
    [names.optionName(7), 'NBD_OPT_GO'],
    [names.optionName(11), 'NBD_OPT_EXTENDED_HEADERS'],
    [names.optionName(99), 'option 99'],
    [names.replyName(1), 'NBD_REP_ACK'],
    [names.replyName(0x80000006), 'NBD_REP_ERR_UNKNOWN'],
    [names.replyName(0x800000ff), 'reply type 0x800000ff'],
    [names.infoName(3), 'NBD_INFO_BLOCK_SIZE'],
    [names.infoName(4660), 'information type 4660'],
    [names.commandName(5), 'NBD_CMD_CACHE'],
    [names.commandName(8), 'command 8'],
    [names.chunkName(0x8002), 'NBD_REPLY_TYPE_ERROR_OFFSET'],
    [names.chunkName(7), 'chunk type 0x7'],
    [names.commandFlagNames(0), ''],
    [names.commandFlagNames(1), 'FUA'],
    [names.commandFlagNames(0x13), 'FUA|NO_HOLE|FAST_ZERO'],
    [names.commandFlagNames(0x10020), 'PAYLOAD_LEN|0x10000'],
    [names.commandFlagNames(0x80000000), '0x80000000'],
  ])('%s', (found, expected) => {
    expect(found).toBe(expected);
  });
});

describe('wire errors', () => {
  it.each([...WIRE_ERRORS, [108, 'ESHUTDOWN']])('%d is %s, there and back', (wire, code) => {
    expect(names.errorName(wire)).toBe(code);
    expect(names.wireError(code)).toBe(wire);
    expect(names.describeError(code)).not.toBe(code);
  });

  it('an unknown number is EINVAL, an unknown name EIO', () => {
    expect(names.errorName(9999)).toBe('EINVAL');
    expect(names.errorName(0)).toBe('EINVAL');
    expect(names.wireError('ENOENT')).toBe(5);
    expect(names.describeError('EXYZ')).toBe('EXYZ');
  });
});

describe('printable', () => {
  it.each<[string, string | number[], string]>([
    ['plain text', 'no such export', 'no such export'],
    ['letters of any script', 'Größe 日本', 'Größe 日本'],
    ['control characters', '\x1b[2J\x07\0', '\\x1b[2J\\x07\\x00'],
    ['line breaks', 'a\r\nb\tc', 'a\\x0d\\x0ab\\x09c'],
    ['DEL and C1', '\x7f\u0085', '\\x7f\\xc2\\x85'],
    ['text that runs backwards', 'a\u202eb', 'a\\xe2\\x80\\xaeb'],
    ['what cannot be seen', '\u200b\u2028\ufeff', '\\xe2\\x80\\x8b\\xe2\\x80\\xa8\\xef\\xbb\\xbf'],
    ['bytes that are not UTF-8', [0x6f, 0x6b, 0xff, 0xfe], 'ok\\xff\\xfe'],
    ['a character cut in half', [0xc3], '\\xc3'],
    ['a backslash', 'a\\b', 'a\\b'],
    ['nothing', '', ''],
  ])('%s', (_title, input, expected) => {
    expect(names.printable(typeof input === 'string' ? Buffer.from(input) : Uint8Array.from(input))).toBe(expected);
  });

  it('is cut at the limit, with a mark', () => {
    expect(names.printable(Buffer.from('x'.repeat(512)))).toBe('x'.repeat(512));
    expect(names.printable(Buffer.from('x'.repeat(513)))).toBe(`${'x'.repeat(512)}…`);
    expect(names.printable(Buffer.from('abcdef'), 3)).toBe('abc…');
  });

  it('looks at its own bytes only', () => {
    expect(names.printable(Buffer.from('hidden text hidden').subarray(7, 11))).toBe('text');
  });
});
