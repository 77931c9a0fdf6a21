// Percent-encoding as RFC 3986 has it: escapes stand for the bytes of UTF-8, and '+' stands for itself.

import { isUtf8 } from 'node:buffer';

/** True when a `%` is not followed by two hexadecimal digits. */
export const hasBadEscape = (text: string): boolean => /%(?![0-9A-Fa-f]{2})/.test(text);

/** The text that an ASCII string without bad escapes stands for, or null when its bytes are not UTF-8. */
export function percentDecode(text: string): string | null {
  const bytes = Buffer.from(
    text.replace(/%([0-9A-Fa-f]{2})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 16))),
    'latin1',
  );
  return isUtf8(bytes) ? bytes.toString('utf8') : null;
}

/** `text` with every byte of its UTF-8 escaped that `safe`, an expression for one character, does not match. */
export function percentEncode(text: string, safe: RegExp): string {
  let out = '';
  for (const byte of Buffer.from(text, 'utf8')) {
    const char = String.fromCharCode(byte);
    out += safe.test(char) ? char : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
  }
  return out;
}
