// The errors of a pool, and what becomes of a command that a connection has failed.

import {
  NbdCommandError,
  NbdConnectionError,
  NbdError,
  NbdProtocolError,
  NbdStateError,
  NbdUnflushedError,
  withMessage,
} from '../errors.js';
import { FLUSH } from '../protocol/commands.js';
import type { Complete } from '../util/option-checks.js';
import type { Member } from './connections/member.js';
import type { RetryOptions } from './options.js';
import { messageOf } from './connections/targets.js';
import type { Task } from './commands/task.js';
import { rangesOf, type Risk } from './unflushed/unflushed.js';

/** What a failed try leads to: the call rejects, the command is tried again later, or is issued elsewhere. */
export type Verdict = 'reject' | 'retry' | 'again';

/** Judges a failed try. */
export function judge(task: Task, member: Member, error: unknown, retry: Complete<RetryOptions> | null): Verdict {
  if (error instanceof NbdCommandError) {
    // Its server carries out nothing more: the command has had no effect.
    if (error.code === 'ESHUTDOWN') return 'again';
    // A server reports lost writes once: a flush that is tried again would succeed without them.
    if (retry === null || task.spec === FLUSH) return 'reject';
    return retry.codes.includes(error.code) && task.retries < retry.attempts ? 'retry' : 'reject';
  }
  if (error instanceof NbdConnectionError || error instanceof NbdStateError) return 'again';
  return error instanceof NbdProtocolError && !member.isLiving ? 'again' : 'reject';
}

const causeOf = (cause: unknown): { cause?: unknown } => (cause === undefined ? {} : { cause });

const because = (cause: unknown): string => (cause === undefined ? '' : `: ${messageOf(cause)}`);

const sentOf = (task: Task): { sent: boolean } => ({ sent: task.failure?.sent ?? false });

const triesOf = ({ tries }: Task): string => `${tries} ${tries === 1 ? 'try' : 'tries'}`;

/** What a command has failed with for good; of one that was tried again, with the number of tries. */
export function finalFailure(task: Task, error: unknown): unknown {
  if (task.retries === 0 || !(error instanceof NbdError)) return error;
  return withMessage(error, `${error.message}, after ${triesOf(task)}`);
}

/** For a command that waited for a connection in vain, or lost one for too long. */
export function noConnection(task: Task, why: string, cause: unknown): NbdError {
  return new NbdConnectionError(`${task.what}: ${why}, after ${triesOf(task)}${because(cause)}`, {
    code: cause instanceof NbdError && cause.code === 'ESTALE' ? 'ESTALE' : 'ENOTCONN',
    ...task.details,
    ...sentOf(task),
    ...causeOf(cause),
  });
}

/** The pool takes no more commands. */
export function poolEnded(task: Task, cause: NbdError | null): NbdStateError {
  const why = cause === null ? 'the pool was shut down or closed' : `the pool has ended (${cause.message})`;
  return new NbdStateError(`${task.what}: ${why}`, { code: 'EINVAL', ...task.details, ...causeOf(cause ?? undefined) });
}

export const closedPool = (): NbdConnectionError =>
  new NbdConnectionError('the pool was closed', { code: 'ENOTCONN', transient: false });

/** Acknowledged writes may be gone. */
export function unflushed(syscall: string, risks: readonly Risk[]): NbdUnflushedError {
  const ranges = rangesOf(risks);
  const cause = risks[0]?.cause;
  const bytes = ranges.reduce((sum, { length }) => sum + length, 0n);
  return new NbdUnflushedError(
    `${syscall}: a connection was lost, and with it perhaps ${bytes} bytes in ${ranges.length} ` +
      `${ranges.length === 1 ? 'range' : 'ranges'} that were written and not flushed before; write them again ` +
      `(error.ranges), then flush${because(cause)}`,
    { code: 'EIO', syscall, ranges, ...causeOf(cause) },
  );
}
