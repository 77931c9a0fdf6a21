// Formats an error for standard error: one line with the cause, a second one with a hint if there is one, and stack
// traces with --verbose.

import { NbdError } from '../sdk.js';
import { CliError } from '../errors.js';
import { tlsHint, withoutTlsAdvice } from './tls-hints.js';
import { visible, visibleLines } from '../../util/visible.js';

/** The text for standard error, ending with a newline. */
export function formatFailure(error: unknown, program: string, verbose: boolean): string {
  const lines = [`${program}: ${messageOf(error)}`];
  const hint = error instanceof CliError ? error.hint : hintOf(error);
  if (hint !== undefined) lines.push(`${program}: suggestion: ${visible(hint)}`);
  if (verbose) {
    for (let cause = error; cause instanceof Error; cause = cause.cause)
      lines.push(visibleLines(cause.stack ?? cause.message));
  }
  return `${lines.join('\n')}\n`;
}

/** The message in one line; control characters from a server or the system are escaped. */
export function messageOf(error: unknown): string {
  const text = error instanceof Error ? withoutTlsAdvice(error) : String(error);
  // The option of the library, as it is called on the command line.
  return visible(
    text
      .replace(/[\r\n]+\s*/g, ' ')
      .replace('try exportNameOnly', 'try --export-name-only')
      .replace(/reconnect\.within: (\d+) ms/, (_, ms: string) => `--reconnect=${Number(ms) / 1000}`)
      .replace('(reconnect.within)', '(--reconnect)'),
  );
}

/** What the user can do about the error, if this is known. */
export function hintOf(error: unknown): string | undefined {
  if (!(error instanceof NbdError)) return undefined;
  const { name, code, message } = error;
  const tls = tlsHint(error);
  if (tls !== undefined) return tls;
  if (name === 'NbdOptionError') {
    // nbdinfo's suggestion, word for word, with `nbd list` added.
    if (code === 'ENOENT') return 'to list all exports on the server, use --list (nbd list)';
    if (message.includes('requires TLS')) return 'the server requires TLS: use an nbds:// URI';
    if (message.includes('TLS is required'))
      return 'the server does not support TLS: an nbd:// URI connects without TLS, in plaintext';
  }
  if (name === 'NbdConnectionError') {
    if (code === 'ECONNREFUSED') return 'check that the server is running and listening on this port';
    if (code === 'ENOENT' && message.includes('no program')) return 'check that it is installed and on the PATH';
    if (code === 'ENOENT') return 'check that the server is running and listening on this socket';
    if (code === 'ETIMEDOUT') return 'the server does not respond: check the address, and that it is an NBD server';
  }
  if (code === 'EINVAL' && message.includes('URI')) {
    return 'an NBD URI is nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH';
  }
  return undefined;
}
