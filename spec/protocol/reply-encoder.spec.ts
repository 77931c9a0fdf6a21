import { describe, expect, it } from '@jest/globals';
import { cutString, ReplyEncoder, type ReplyStyle } from '../../lib/protocol/reply-encoder.js';

// The bytes below are written out from doc/proto.md, not made with the code they check.
const COOKIE = '0102030405060708';
const request = { cookieHigh: 0x01020304, cookieLow: 0x05060708, offset: 0x1_0000_0200 };
const OFFSET = '0000000100000200';
const encoder = (style: ReplyStyle): ReplyEncoder => new ReplyEncoder(style, (length) => Buffer.alloc(length));
const bytes = (...parts: string[]): string => parts.join('').replaceAll(' ', '');
const data = (style: ReplyStyle, text: string, done: boolean): string => {
  const it = encoder(style);
  const buffer = Buffer.concat([Buffer.alloc(it.dataPrefix), Buffer.from(text)]);
  it.encodeData(buffer, request, 0x1_0000_0204, text.length, done);
  return buffer.toString('hex');
};

describe('ReplyEncoder', () => {
  it('makes simple replies', () => {
    const simple = encoder('simple');
    expect(simple.encodeDone(request).toString('hex')).toBe(bytes('67446698 00000000', COOKIE));
    expect(simple.encodeError(request, 28, 'no room for this text').toString('hex')).toBe(
      bytes('67446698 0000001c', COOKIE),
    );
    expect(data('simple', 'abc', true)).toBe(bytes('67446698 00000000', COOKIE, '616263'));
  });

  it('makes structured replies', () => {
    const structured = encoder('structured');
    const header = (flags: string, type: string, length: string): string =>
      bytes('668e33ef', flags, type, COOKIE, length);
    expect(structured.encodeDone(request).toString('hex')).toBe(header('0001', '0000', '00000000'));
    expect(structured.encodeError(request, 5, 'bad').toString('hex')).toBe(
      header('0001', '8001', '00000009') + bytes('00000005 0003 626164'),
    );
    expect(data('structured', 'abc', false)).toBe(
      header('0000', '0001', '0000000b') + bytes('0000000100000204 616263'),
    );
    expect(structured.encodeHole(request, 0x1_0000_0204, 0xffff_ffff, true).toString('hex')).toBe(
      header('0001', '0002', '0000000c') + bytes('0000000100000204 ffffffff'),
    );
    expect(structured.encodeBlockStatus(request, 7, [65536, 3, 512, 0], false).toString('hex')).toBe(
      header('0000', '0005', '00000014') + bytes('00000007 00010000 00000003 00000200 00000000'),
    );
  });

  it('makes extended replies, with the offset of the request in every header', () => {
    const extended = encoder('extended');
    const header = (flags: string, type: string, length: string): string =>
      bytes('6e8a278c', flags, type, COOKIE, OFFSET, '00000000', length);
    expect(extended.encodeDone(request).toString('hex')).toBe(header('0001', '0000', '00000000'));
    expect(extended.encodeError(request, 22, '').toString('hex')).toBe(
      header('0001', '8001', '00000006') + bytes('00000016 0000'),
    );
    expect(data('extended', 'abc', true)).toBe(header('0001', '0001', '0000000b') + bytes('0000000100000204 616263'));
    expect(extended.encodeHole(request, 0x1_0000_0204, 512, false).toString('hex')).toBe(
      header('0000', '0002', '0000000c') + bytes('0000000100000204 00000200'),
    );
    expect(extended.encodeBlockStatus(request, 1, [1n << 63n, 1n << 40n], true).toString('hex')).toBe(
      header('0001', '0006', '00000018') + bytes('00000001 00000001 8000000000000000 0000010000000000'),
    );
  });

  it('cuts the text of an error to 4096 bytes, never inside a character', () => {
    expect(encoder('structured').encodeError(request, 5, 'x'.repeat(70_000)).length).toBe(20 + 6 + 4096);
    expect(cutString('x'.repeat(4095) + 'é').toString()).toBe('x'.repeat(4095));
    expect(cutString('x'.repeat(4094) + 'é').length).toBe(4096);
  });
});
