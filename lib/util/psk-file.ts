// Files of pre-shared keys as GnuTLS's psktool writes them, a line `user:hexkey` each. Client and server read them here,
// so that both understand one file alike. Invariant: nothing that a caller may put into a message holds a key.

// OpenSSL's limit.
const MAX_KEY = 512;

/** A key in hexadecimal, of at most 512 bytes; null for anything else. */
export function decodeKey(text: string): Buffer | null {
  if (!/^(?:[0-9a-f]{2})+$/i.test(text) || text.length > 2 * MAX_KEY) return null;
  return Buffer.from(text, 'hex');
}

export interface PskEntry {
  readonly user: string;
  /** Null where the line has no key in hexadecimal. */
  readonly key: Buffer | null;
}

export interface PskFile {
  readonly entries: readonly PskEntry[];
  /** Numbers, from 1, of lines without a user and a key: a server refuses the file, because they lock a user out. */
  readonly badLines: readonly number[];
}

/** Empty lines and comments are skipped; `#` also begins a user name in hexadecimal, psktool's way to write a colon. */
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
