// Turns the arguments of a method into an accepted command; checks signal, state, types, flags and strict mode, in that
// order. An exception here means that nothing was queued, no cookie was used and no byte was sent; promise forms
// reject.

import { NbdStateError, NbdStrictError } from '../../errors.js';
import { encodeBlockStatusFilter } from '../../protocol/block-status.js';
import { CMD_FLAG_PAYLOAD_LEN } from '../../protocol/client-constants.js';
import type { ChunkCallback, ExtentCallback } from '../../protocol/reply-target.js';
import { Command, type CommandObserver, type CompletionCallback } from '../transmission/command.js';
import { type CommandSpec, PREAD, PREAD_STRUCTURED, PWRITE } from '../../protocol/commands.js';
import { DIRECT_LENGTH } from '../../protocol/reply-decoder.js';
import { checkStrict, toBytes, toCallback, toFlags, toU64 } from '../../protocol/strict.js';
import { Extents } from '../../util/extents.js';
import { isForReads } from '../../util/memory.js';
import type { U64 } from '../../util/u64.js';
import { byteLengthOf, isUint8Array, memoryOf } from '../../util/views.js';
import type { Lifecycle } from '../lifecycle.js';
import { checkNames, checkSignal } from '../options/options.js';
import type { ResultAllocator } from '../platform.js';
import { checkState, WHEN_CONNECTED } from '../state.js';
import type { Transmission } from '../transmission/transmission.js';
import { quoted } from '../../util/visible.js';

const ZERO_BYTES = new Uint8Array(0);

// eslint-disable-next-line @typescript-eslint/unbound-method -- a subclass may override it
const { fill } = Uint8Array.prototype;

// One executor for all promises: a closure for each would be a quarter of the cost of a call.
let takenResolve: ((value: unknown) => void) | null = null;
let takenReject: ((reason: unknown) => void) | null = null;
const executor = (resolve: (value: unknown) => void, reject: (reason: unknown) => void): void => {
  takenResolve = resolve;
  takenReject = reject;
};

export class Submission {
  readonly #lifecycle: Lifecycle;

  readonly #memory: ResultAllocator;

  constructor(lifecycle: Lifecycle) {
    this.#lifecycle = lifecycle;
    this.#memory = lifecycle.platform.makeMemory();
  }

  /** Commands without payload, as a promise. */
  submit(spec: CommandSpec, count: unknown, offset: unknown, flags: unknown, signal?: AbortSignal): Promise<void> {
    try {
      return this.startPlain(spec, count, offset, flags, signal, null);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** {@link submit}, but throws what the checks refuse; so do all start methods. */
  startPlain(
    spec: CommandSpec,
    count: unknown,
    offset: unknown,
    flags: unknown,
    signal: AbortSignal | undefined,
    observer: CommandObserver | null,
  ): Promise<void> {
    checkSignal(spec.method, signal);
    return this.#promise(this.#prepare(spec, count, offset, flags), signal, observer);
  }

  /** Commands without payload, raw. */
  submitRaw(
    spec: CommandSpec,
    count: unknown,
    offset: unknown,
    completion: CompletionCallback | null | undefined,
    flags: unknown,
  ): bigint {
    return this.#raw(this.#prepare(spec, count, offset, flags), completion);
  }

  read(count: unknown, offset: unknown, flags: unknown, signal?: AbortSignal): Promise<Uint8Array> {
    try {
      return this.startRead(count, offset, flags, signal, null);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  startRead(
    count: unknown,
    offset: unknown,
    flags: unknown,
    signal: AbortSignal | undefined,
    observer: CommandObserver | null,
  ): Promise<Uint8Array> {
    checkSignal(PREAD.method, signal);
    const command = this.#prepare(PREAD, count, offset, flags);
    command.weight = Number(command.count);
    command.allocate = this.#memory.allocate;
    if (command.count === 0) command.result = this.#memory.allocateZeroed(0);
    return this.#promise(command, signal, observer);
  }

  readStructured(
    count: unknown,
    offset: unknown,
    chunk: ChunkCallback,
    flags: unknown,
    signal?: AbortSignal,
  ): Promise<Uint8Array> {
    try {
      checkSignal(PREAD_STRUCTURED.method, signal);
      const command = this.#prepare(PREAD_STRUCTURED, count, offset, flags);
      command.onChunk = toCallback(chunk, PREAD_STRUCTURED.method, 'chunk');
      command.weight = Number(command.count);
      // The callback can read all of the buffer before all bytes have arrived.
      command.allocate = this.#lifecycle.settings.preadInitialize ? this.#memory.allocateZeroed : this.#memory.allocate;
      if (command.count === 0) command.result = this.#memory.allocateZeroed(0);
      return this.#promise(command, signal);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  readInto(buffer: Uint8Array, offset: unknown, flags: unknown, signal?: AbortSignal): Promise<void> {
    try {
      return this.startReadInto(buffer, offset, flags, signal, null);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  startReadInto(
    buffer: Uint8Array,
    offset: unknown,
    flags: unknown,
    signal: AbortSignal | undefined,
    observer: CommandObserver | null,
  ): Promise<void> {
    this.#initialize(buffer);
    checkSignal('preadInto', signal);
    return this.#promise(this.#prepareRead(PREAD, 'preadInto', buffer, offset, flags), signal, observer);
  }

  readRaw(
    buffer: Uint8Array,
    offset: unknown,
    completion: CompletionCallback | null | undefined,
    flags: unknown,
  ): bigint {
    this.#initialize(buffer);
    return this.#raw(this.#prepareRead(PREAD, 'pread', buffer, offset, flags), completion);
  }

  readStructuredRaw(
    buffer: Uint8Array,
    offset: unknown,
    chunk: ChunkCallback,
    completion: CompletionCallback | null | undefined,
    flags: unknown,
  ): bigint {
    this.#initialize(buffer);
    const command = this.#prepareRead(PREAD_STRUCTURED, 'preadStructured', buffer, offset, flags);
    // The chunks of a structured read are views of this memory.
    if (command.buffer !== null) command.buffer = memoryOf(command.buffer);
    command.onChunk = toCallback(chunk, PREAD_STRUCTURED.method, 'chunk');
    return this.#raw(command, completion);
  }

  write(buffer: Uint8Array, offset: unknown, flags: unknown, signal?: AbortSignal): Promise<void> {
    try {
      return this.startWrite(buffer, offset, flags, signal, null);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  startWrite(
    buffer: Uint8Array,
    offset: unknown,
    flags: unknown,
    signal: AbortSignal | undefined,
    observer: CommandObserver | null,
  ): Promise<void> {
    checkSignal(PWRITE.method, signal);
    return this.#promise(this.#prepareWrite(buffer, offset, flags), signal, observer);
  }

  writeRaw(
    buffer: Uint8Array,
    offset: unknown,
    completion: CompletionCallback | null | undefined,
    flags: unknown,
  ): bigint {
    return this.#raw(this.#prepareWrite(buffer, offset, flags), completion);
  }

  /** Block status with a callback per context. */
  status(
    spec: CommandSpec,
    count: unknown,
    offset: unknown,
    extent: ExtentCallback,
    flags: unknown,
    signal?: AbortSignal,
    contexts?: readonly string[],
  ): Promise<void> {
    try {
      checkSignal(spec.method, signal);
      return this.#promise(this.#prepareStatus(spec, count, offset, extent, flags, contexts), signal);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Block status that resolves with the extents of each context. */
  statusMap(
    spec: CommandSpec,
    count: unknown,
    offset: unknown,
    flags: unknown,
    signal?: AbortSignal,
    contexts?: readonly string[],
  ): Promise<Map<string, Extents<never>>> {
    try {
      checkSignal(spec.method, signal);
      const found = new Map<string, Extents<never>>();
      const collect: ExtentCallback = (context, start, entries) => {
        found.set(context, new Extents<never>(start, entries as never));
      };
      const command = this.#prepareStatus(spec, count, offset, collect, flags, contexts);
      command.result = found;
      return this.#promise(command, signal);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  statusRaw(
    spec: CommandSpec,
    count: unknown,
    offset: unknown,
    extent: ExtentCallback,
    completion: CompletionCallback | null | undefined,
    flags: unknown,
    contexts?: readonly string[],
  ): bigint {
    return this.#raw(this.#prepareStatus(spec, count, offset, extent, flags, contexts), completion);
  }

  #connected(method: string): Transmission {
    const lifecycle = this.#lifecycle;
    const { transmission } = lifecycle;
    if (lifecycle.phase === 'connected' && transmission !== null) return transmission;
    checkState(method, lifecycle.phase, WHEN_CONNECTED, lifecycle.error);
    // It is never connected without a transmission; a call that went on would never settle.
    throw new NbdStateError(`${method}: the connection is not ready`, { code: 'EINVAL', syscall: method });
  }

  #prepare(spec: CommandSpec, count: unknown, offset: unknown, flags: unknown): Command {
    this.#connected(spec.method);
    return this.#checked(spec, toU64(count, spec.method, 'count'), toU64(offset, spec.method, 'offset'), flags);
  }

  #checked(spec: CommandSpec, count: U64, offset: U64, flags: unknown): Command {
    const context = this.#lifecycle.strict;
    const asked = toFlags(flags, spec.method);
    // There is always a context when there is a transmission.
    const wireFlags = context === null ? asked : checkStrict(spec, count, offset, asked, context);
    return new Command(spec, count, offset, wireFlags);
  }

  #prepareRead(spec: CommandSpec, method: string, buffer: unknown, offset: unknown, flags: unknown): Command {
    this.#connected(method);
    const bytes = toBytes(buffer, method);
    const length = byteLengthOf(bytes);
    const command = this.#checked(spec, length, toU64(offset, method, 'offset'), flags);
    command.buffer = bytes;
    command.weight = length;
    // Below, the socket does not read into it in any case.
    if (length >= DIRECT_LENGTH) command.ownsBuffer = isForReads(bytes);
    return command;
  }

  #prepareWrite(buffer: unknown, offset: unknown, flags: unknown): Command {
    const { method } = PWRITE;
    this.#connected(method);
    const bytes = toBytes(buffer, method);
    const length = byteLengthOf(bytes);
    const command = this.#checked(PWRITE, length, toU64(offset, method, 'offset'), flags);
    command.payload = length === 0 ? ZERO_BYTES : bytes;
    command.weight = length;
    return command;
  }

  #prepareStatus(
    spec: CommandSpec,
    count: unknown,
    offset: unknown,
    extent: ExtentCallback,
    flags: unknown,
    contexts: readonly string[] | undefined,
  ): Command {
    const command = this.#prepare(spec, count, offset, flags);
    command.onExtent = toCallback(extent, spec.method, 'extent');
    const wanted = contexts === undefined ? null : this.#contextIds(spec.method, contexts);
    // A server expects a payload only with the flag and extended headers: otherwise it would read it as a request.
    const takesFilter =
      this.#lifecycle.strict?.extendedHeaders === true && (command.flags & CMD_FLAG_PAYLOAD_LEN) !== 0;
    if (wanted !== null && takesFilter) {
      command.expected = wanted;
      command.payload = encodeBlockStatusFilter(command.count, command.expected);
    }
    return command;
  }

  /** The IDs of negotiated contexts; throws for other names, as libnbd does. */
  #contextIds(method: string, contexts: unknown): number[] {
    const negotiated = [...(this.#lifecycle.session?.negotiated.contexts ?? [])];
    return checkNames(method, contexts).map((name) => {
      const found = negotiated.find(([, each]) => each === name);
      if (found !== undefined) return found[0];
      throw new NbdStrictError(`${method}: context ${quoted(name)} was not negotiated`, {
        code: 'EINVAL',
        syscall: method,
      });
    });
  }

  /** Done before any check, as in libnbd, so that even a refused read leaves no old bytes. */
  #initialize(buffer: unknown): void {
    if (!this.#lifecycle.settings.preadInitialize || !isUint8Array(buffer) || isForReads(buffer)) return;
    fill.call(buffer, 0);
  }

  #promise<Result>(
    command: Command,
    signal: AbortSignal | undefined,
    observer: CommandObserver | null = null,
  ): Promise<Result> {
    const promise = new Promise<unknown>(executor) as Promise<Result>;
    command.resolve = takenResolve;
    command.reject = takenReject;
    command.observer = observer;
    this.#accept(command, signal);
    observer?.accepted(command);
    return promise;
  }

  #raw(command: Command, completion: CompletionCallback | null | undefined): bigint {
    command.completion = toCallback(completion, command.spec.method, 'completion');
    this.#accept(command);
    return BigInt(command.cookie);
  }

  #accept(command: Command, signal?: AbortSignal): void {
    // Checked again: reading the caller's arguments may have ended the connection (a getter, a Proxy).
    const transmission = this.#connected(command.spec.method);
    if (command.spec.writes) this.#lifecycle.hasWritten = true;
    transmission.accept(command, signal);
  }
}
