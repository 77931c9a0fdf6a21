// Percent-encoding as in RFC 3986: escapes are bytes of UTF-8, and '+' is a plain character.

import { Buffer } from './buffer.js';
import { TextDecoder } from './platform.js';

/** Whether a `%` is not followed by two hexadecimal digits. */
export const hasBadEscape = (text: string): boolean => /%(?![0-9A-Fa-f]{2})/.test(text);

/** Decodes an ASCII string without bad escapes; null if its bytes are not UTF-8. */
export function percentDecode(text: string): string | null {
  if (!text.includes('%')) return text;
  const bytes = Buffer.from(
    text.replace(/%([0-9A-Fa-f]{2})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 16))),
    'latin1',
  );
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}

/** Escapes every byte of the UTF-8 text that does not match `safe`, an expression for one character. */
export function percentEncode(text: string, safe: RegExp): string {
  let out = '';
  for (const byte of Buffer.from(text, 'utf8')) {
    const char = String.fromCharCode(byte);
    out += safe.test(char) ? char : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`;
  }
  return out;
}
