// Commands that a connection takes at once, which is nearly all of them: each costs what it costs on the connection, and
// a little arithmetic. Only one that fails becomes a task, with the promise that its caller has, and goes the way of
// tasks from then on.

import type { ByteCount } from '../../client/export.js';
import type { Command, CommandObserver } from '../../client/transmission/command.js';
import { NbdStateError } from '../../errors.js';
import type { CommandSpec } from '../../protocol/commands.js';
import { NBD_CMD_READ, NBD_CMD_WRITE } from '../../protocol/constants.js';
import type { Member } from '../connections/member.js';
import { lengthOf, PlainTask, ReadIntoTask, ReadTask, type Task, weightOf, WriteTask } from './task.js';

/** What direct commands share with tasks. */
export interface DirectOwner {
  /** The connection that a command may be put on now; null where it must wait, or be refused. */
  ready(weight: number): Member | null;
  /** Issues a task, or lets it wait. */
  run(task: Task): Promise<unknown>;
  /** A command was put on a connection: its place in the order of calls. */
  begun(command: Command, member: Member): number;
  succeeded(command: Command, member: Member): void;
  /** A try of this task, which has its caller's promise, has failed. */
  failed(task: Task, member: Member, reason: unknown): void;
}

export class DirectCommands {
  readonly #owner: DirectOwner;

  constructor(owner: DirectOwner) {
    this.#owner = owner;
  }

  read(count: number, offset: ByteCount, flags: number, signal: AbortSignal | undefined): Promise<unknown> {
    const member = this.#owner.ready(weightOf(count));
    if (member === null) return this.#owner.run(new ReadTask(count, offset, flags, signal));
    try {
      return member.submission.startRead(count, offset, flags, signal, this.#observerOf(member));
    } catch (error) {
      if (!isOver(error)) return Promise.reject(error);
      return this.#owner.run(new ReadTask(count, offset, flags, signal));
    }
  }

  readInto(buffer: Uint8Array, offset: ByteCount, flags: number, signal: AbortSignal | undefined): Promise<unknown> {
    const member = this.#owner.ready(weightOf(lengthOf(buffer)));
    if (member === null) return this.#owner.run(new ReadIntoTask(buffer, offset, flags, signal));
    try {
      return member.submission.startReadInto(buffer, offset, flags, signal, this.#observerOf(member));
    } catch (error) {
      if (!isOver(error)) return Promise.reject(error);
      return this.#owner.run(new ReadIntoTask(buffer, offset, flags, signal));
    }
  }

  write(buffer: Uint8Array, offset: ByteCount, flags: number, signal: AbortSignal | undefined): Promise<unknown> {
    const member = this.#owner.ready(weightOf(lengthOf(buffer)));
    if (member === null) return this.#owner.run(new WriteTask(buffer, offset, flags, signal));
    try {
      return member.submission.startWrite(buffer, offset, flags, signal, this.#observerOf(member));
    } catch (error) {
      if (!isOver(error)) return Promise.reject(error);
      return this.#owner.run(new WriteTask(buffer, offset, flags, signal));
    }
  }

  /** cache, trim and zero. */
  plain(
    spec: CommandSpec,
    count: ByteCount,
    offset: ByteCount,
    flags: number,
    signal: AbortSignal | undefined,
  ): Promise<unknown> {
    const member = this.#owner.ready(0);
    if (member === null) return this.#owner.run(new PlainTask(spec, count, offset, flags, signal));
    try {
      return member.submission.startPlain(spec, count, offset, flags, signal, this.#observerOf(member));
    } catch (error) {
      if (!isOver(error)) return Promise.reject(error);
      return this.#owner.run(new PlainTask(spec, count, offset, flags, signal));
    }
  }

  #observerOf(member: Member): CommandObserver {
    return (member.observer ??= new Observer(this.#owner, member));
  }
}

/** A connection that has just ended, or is about to, has refused the call: it concerns the connection alone. */
const isOver = (error: unknown): boolean => error instanceof NbdStateError;

/** Follows the commands on one connection. */
class Observer implements CommandObserver {
  readonly #owner: DirectOwner;
  readonly #member: Member;

  constructor(owner: DirectOwner, member: Member) {
    this.#owner = owner;
    this.#member = member;
  }

  accepted(command: Command): void {
    command.order = this.#owner.begun(command, this.#member);
  }

  succeeded(command: Command): void {
    this.#owner.succeeded(command, this.#member);
  }

  failed(command: Command, reason: unknown, signal: AbortSignal | null): void {
    const task = taskOf(command, signal ?? undefined);
    const { resolve, reject } = command;
    task.resolve = resolve;
    task.reject = reject;
    task.tries = 1;
    // Not within the end of the connection, whose other commands are still to be settled; nor before accepted().
    queueMicrotask(() => {
      task.order = command.order;
      this.#owner.failed(task, this.#member, reason);
    });
  }
}

/** The same call once more. */
function taskOf(command: Command, signal: AbortSignal | undefined): Task {
  const { spec, count, offset, flags, payload, buffer } = command;
  // A buffer may have been transferred away since the call.
  const length = Number(count);
  if (spec.type === NBD_CMD_WRITE && payload !== null) return new WriteTask(payload, offset, flags, signal, length);
  if (spec.type !== NBD_CMD_READ) return new PlainTask(spec, count, offset, flags, signal);
  // A buffer that the library has made is the command's result, too.
  if (buffer === null || buffer === command.result) return new ReadTask(length, offset, flags, signal);
  return new ReadIntoTask(buffer, offset, flags, signal, length);
}
