// Pre-shared keys for TLS: the suites that client and server offer, and whether this runtime supports them.

// OpenSSL uses PSK suites for TLS 1.2 only if they are named. Suites with forward secrecy come first; those with CBC
// are for peers without AEAD (GnuTLS before 3.4).
const SUITES = [
  ...['TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256', 'TLS_AES_128_GCM_SHA256'],
  ...['ECDHE-PSK-CHACHA20-POLY1305', 'DHE-PSK-AES256-GCM-SHA384', 'DHE-PSK-CHACHA20-POLY1305'],
  ...['DHE-PSK-AES128-GCM-SHA256', 'ECDHE-PSK-AES256-CBC-SHA384', 'ECDHE-PSK-AES128-CBC-SHA256'],
  ...['DHE-PSK-AES256-CBC-SHA384', 'DHE-PSK-AES128-CBC-SHA256'],
  ...['PSK-AES256-GCM-SHA384', 'PSK-CHACHA20-POLY1305', 'PSK-AES128-GCM-SHA256'],
  ...['PSK-AES256-CBC-SHA384', 'PSK-AES128-CBC-SHA256'],
];

export const PSK_CIPHERS = SUITES.join(':');

/** The name of a runtime that ignores `pskCallback` (Bun, Deno) and would never use a key; null for Node. */
export function runtimeWithoutPsk(
  versions: Readonly<Record<string, string | undefined>> = process.versions,
): string | null {
  if (versions['bun'] !== undefined) return 'Bun';
  return versions['deno'] === undefined ? null : 'Deno';
}
