// Files of pre-shared keys as GnuTLS's psktool writes them: lines of `user:hexkey`. Client and server both read them
// here, and so interpret them alike. Invariant: nothing that a caller may put into a message contains a key.

import { Buffer } from './buffer.js';

// OpenSSL's limit.
const MAX_KEY = 512;

/** Decodes a hexadecimal key of at most 512 bytes; null for anything else. */
export function decodeKey(text: string): Buffer | null {
  if (!/^(?:[0-9a-f]{2})+$/i.test(text) || text.length > 2 * MAX_KEY) return null;
  return Buffer.from(text, 'hex');
}

export interface PskEntry {
  readonly user: string;
  /** Null if the line has no hexadecimal key. */
  readonly key: Buffer | null;
}

export interface PskFile {
  readonly entries: readonly PskEntry[];
  /** Line numbers, from 1, of lines without a user and a key. A server refuses the file: they would lock a user out. */
  readonly badLines: readonly number[];
}

/**
 * Skips empty lines and comments. `#` also starts a hexadecimal user name, which psktool uses for names with a colon.
 */
export function parsePskFile(text: string): PskFile {
  const entries: PskEntry[] = [];
  const badLines: number[] = [];
  for (const [at, line] of text
    .replace(/^\ufeff/, '')
    .split(/\r?\n/)
    .entries()) {
    const encoded = /^#((?:[0-9a-f]{2})+):(.*)$/i.exec(line);
    if (line.trim() === '' || (line.startsWith('#') && encoded === null)) continue;
    const colon = line.indexOf(':');
    const user = encoded === null ? line.slice(0, Math.max(colon, 0)) : String(Buffer.from(encoded[1] ?? '', 'hex'));
    const key = decodeKey((encoded?.[2] ?? line.slice(colon + 1)).trim());
    if (user === '' || key === null) badLines.push(at + 1);
    if (user !== '') entries.push({ user, key });
  }
  return { entries, badLines };
}
