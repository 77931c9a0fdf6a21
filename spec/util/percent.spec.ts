import { describe, expect, it } from '@jest/globals';

import { hasBadEscape, percentDecode, percentEncode } from '../../lib/util/percent.js';

describe('percent-encoding', () => {
  it.each([
    ['hello%20world', 'hello world'],
    ['%C3%A9', 'é'],
    ['a+b', 'a+b'],
    ['%2fx%2F', '/x/'],
    ['', ''],
    ['%00', '\0'],
    ['%ff', null],
    ['%C3', null],
  ])('decodes %p as %p', (text, decoded) => {
    expect(percentDecode(text)).toBe(decoded);
  });

  it.each([
    ['%', true],
    ['%4', true],
    ['%zz', true],
    ['%41', false],
    ['100%25', false],
  ])('%p has a bad escape: %p', (text, bad) => {
    expect(hasBadEscape(text)).toBe(bad);
  });

  it('escapes every byte that is not safe', () => {
    expect(percentEncode('a b/é%', /[a-z/]/)).toBe('a%20b/%C3%A9%25');
    expect(percentDecode(percentEncode('a b/é%\0', /[a-z]/))).toBe('a b/é%\0');
  });
});
