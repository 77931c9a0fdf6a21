// How a failure is told: one line with the cause, a second one with the way out where there is one, the rest only
// with --verbose.

import { NbdError } from '../sdk.js';
import { CliError } from '../errors.js';
import { tlsHint, withoutTlsAdvice } from './tls-hints.js';
import { visible, visibleLines } from '../../util/visible.js';

/** The text for standard error, with a newline at its end. */
export function tell(error: unknown, program: string, verbose: boolean): string {
  const lines = [`${program}: ${messageOf(error)}`];
  const hint = error instanceof CliError ? error.hint : hintOf(error);
  if (hint !== undefined) lines.push(`${program}: suggestion: ${visible(hint)}`);
  if (verbose) {
    for (let cause = error; cause instanceof Error; cause = cause.cause)
      lines.push(visibleLines(cause.stack ?? cause.message));
  }
  return `${lines.join('\n')}\n`;
}

/** One line: no message of a server or of the system may break out of it. */
export function messageOf(error: unknown): string {
  const text = error instanceof Error ? withoutTlsAdvice(error) : String(error);
  // The library's option, as the command line has it.
  return visible(text.replace(/[\r\n]+\s*/g, ' ').replace('try exportNameOnly', 'try --export-name-only'));
}

/** What to do about it. */
export function hintOf(error: unknown): string | undefined {
  if (!(error instanceof NbdError)) return undefined;
  const { name, code, message } = error;
  const tls = tlsHint(error);
  if (tls !== undefined) return tls;
  if (name === 'NbdOptionError') {
    if (code === 'ENOENT') return 'to list all exports on the server, use --list (nbd list)';
    if (message.includes('requires TLS')) return 'the server wants TLS: use an nbds:// URI';
    if (message.includes('TLS is required'))
      return 'the server has no TLS: an nbd:// URI connects without, in the clear';
  }
  if (name === 'NbdConnectionError') {
    if (code === 'ECONNREFUSED') return 'is the server running, and is this its port?';
    if (code === 'ENOENT' && message.includes('no program')) return 'is it installed, and on the PATH?';
    if (code === 'ENOENT') return 'is the server running, and is this its socket?';
    if (code === 'ETIMEDOUT') return 'the server does not answer: check the address, and that it speaks NBD';
  }
  if (code === 'EINVAL' && message.includes('URI')) {
    return 'an NBD URI is nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=PATH';
  }
  return undefined;
}
