// The public face of a connection: documentation, and methods that delegate in a line or two. Every libnbd function
// nbd_foo_bar is the method fooBar.

import { type NbdError, NbdStrictError } from '../errors.js';
import { SHUTDOWN_ABANDON_PENDING } from '../protocol/client-constants.js';
import type { ChunkCallback, ExtentCallback } from '../protocol/reply-target.js';
import type { CompletionCallback } from './transmission/command.js';
import * as spec from '../protocol/commands.js';
import { toCallback } from '../protocol/strict.js';
import { isUri } from '../protocol/uri.js';
import type { Extents } from '../util/extents.js';
import { lifecycleOf } from './api/settings.js';
import { NbdOptionMode, type OptionCallback } from './api/option-mode.js';
import { statusWithOptions, withOptions } from './api/command-options.js';
import type { ByteCount, NbdCommandFlags, NbdExport } from './export.js';
import type { Lifecycle } from './lifecycle.js';
import type { Target } from './connect/target.js';
import { checkBits, checkSignal, type NbdConnectionOptions } from './options/options.js';
import type { ClientPlatform, TargetMakers } from './platform.js';
import { abortable, killProgram, programOf } from './connect/program-end.js';
import { checkState, WHEN_CONNECTED, WHEN_CREATED, WHEN_NOT_CREATED, WHEN_STARTED } from './state.js';
import { Submission } from './api/submission.js';
import { keepTrying, waitForCheck } from './connect/waiting.js';

/** Options of `NbdConnection.connect`: those of the constructor, and of the attempt. */
export interface ConnectOptions extends NbdConnectionOptions {
  /** Aborts the attempt at any point: the promise rejects with its reason. */
  signal?: AbortSignal | undefined;
  /**
   * Milliseconds to keep trying while no server is listening yet (connection refused, no such socket, closed at once).
   * A stream and a program are tried once. Default 0; Infinity for no limit.
   */
  waitFor?: number | undefined;
}

/** The connection of any platform. */
type AnyConnection = NbdConnectionBase<Uint8Array, unknown>;

let connectTo: (connection: AnyConnection, target: unknown, signal: AbortSignal | undefined) => Promise<void>;

/** The work of each platform's `NbdConnection.connect`: `create` makes the connections that are tried. */
export async function connectNew<Connection extends AnyConnection>(
  create: (options: NbdConnectionOptions) => Connection,
  targets: TargetMakers,
  target: unknown,
  options: ConnectOptions = {},
): Promise<Connection> {
  const { signal, waitFor = 0, ...rest } = (options as typeof options | null) ?? {};
  const settings = typeof (options as unknown) === 'object' && (options as unknown) !== null ? rest : options;
  const patience = waitForCheck('connect: waitFor', waitFor);
  return keepTrying(isText(target) || targets.isPlace(target) ? patience : 0, signal, async () => {
    const connection = create(settings);
    await connectTo(connection, target, signal);
    return connection;
  });
}

const isText = (target: unknown): boolean => typeof target === 'string' || target instanceof URL;

/** What issues the commands of a connection; for the pool. */
export let submissionOf: (connection: AnyConnection) => Submission;

/**
 * All of a connection except what depends on where it runs. `Bytes` is the class of the results of reads, `Stream` what
 * may be passed as a connected stream.
 *
 * Every command comes in two forms. The promise form (`cache`) takes an `AbortSignal` and rejects with an
 * {@link NbdError}; it never throws. The raw form (`aioCache`) returns a cookie at once, takes an optional completion
 * callback, and throws when it refuses a call.
 */
export abstract class NbdConnectionBase<Bytes extends Uint8Array, Stream>
  extends NbdOptionMode
  implements NbdExport<Bytes>
{
  readonly #lifecycle: Lifecycle;
  readonly #commands: Submission;
  readonly #targets: TargetMakers;

  static {
    submissionOf = (connection) => connection.#commands;
    connectTo = (connection, target, signal) =>
      connection.#connect(
        'connect',
        () =>
          isText(target)
            ? connection.#applyUri('connect', String(target))
            : connection.#targets.named('connect', target, connection.#lifecycle.settings),
        signal,
      );
  }

  /** @internal */
  protected constructor(options: NbdConnectionOptions | undefined, platform: ClientPlatform) {
    super(options, platform);
    this.#lifecycle = lifecycleOf(this);
    this.#commands = new Submission(this.#lifecycle);
    this.#targets = platform.targets;
  }

  // ── Connecting ────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Connects to an NBD URI (libnbd: `nbd_connect_uri`). A name in the URI becomes the export name.
   *
   * `nbd+ssh` runs `ssh`, and `nc` on its server; `nbd+vsock` runs `socat` or `ncat`.
   *
   * @throws (rejects) as {@link NbdConnection.connect}; `EINVAL` for an invalid URI, `EPERM` for a URI that uses
   *   something the connection does not allow (see {@link setUriAllowTransports} and the other `setUriAllow*` methods).
   */
  connectUri(uri: string, signal?: AbortSignal): Promise<void> {
    return this.#connect('connectUri', () => this.#applyUri('connectUri', uri), signal);
  }

  /**
   * Connects over TCP (libnbd: `nbd_connect_tcp`). If TCP cannot connect, the connection is still in its initial state
   * and may try again.
   *
   * @param port 1 to 65535, as a number or in decimal digits.
   * @throws (rejects) as {@link NbdConnection.connect}.
   */
  connectTcp(host: string, port: number | string, signal?: AbortSignal): Promise<void> {
    return this.#connect('connectTcp', () => this.#targets.tcp('connectTcp', host, port), signal);
  }

  /**
   * Connects to a Unix socket (libnbd: `nbd_connect_unix`).
   *
   * @param path A path of at most 107 bytes, or `\0name` for an abstract socket (Linux only).
   * @throws (rejects) as {@link NbdConnection.connect}; `ENAMETOOLONG` for a path that is too long.
   */
  connectUnix(path: string, signal?: AbortSignal): Promise<void> {
    return this.#connect(
      'connectUnix',
      () => this.#targets.unix('connectUnix', path, this.#lifecycle.settings),
      signal,
    );
  }

  /**
   * Uses a connected stream (libnbd: `nbd_connect_socket`) and owns it: it is destroyed with the connection.
   *
   * @throws (rejects) as {@link NbdConnection.connect}; `EINVAL` for a stream that is destroyed or in object mode.
   */
  connectSocket(stream: Stream, signal?: AbortSignal): Promise<void> {
    return this.#connect(
      'connectSocket',
      () => this.#targets.stream('connectSocket', stream, this.#lifecycle.settings),
      signal,
    );
  }

  /**
   * Starts connecting to an NBD URI (libnbd: `nbd_aio_connect_uri`).
   *
   * @param completion Called once with the outcome; also visible through `stateChange` and `aioIs*`.
   * @throws as {@link connectUri}, for everything that is checked before connecting.
   */
  aioConnectUri(uri: string, completion?: OptionCallback | null): void {
    this.#begin('aioConnectUri', completion, () => this.#applyUri('aioConnectUri', uri));
  }

  /** Starts connecting over TCP (libnbd: `nbd_aio_connect_tcp`). */
  aioConnectTcp(host: string, port: number | string, completion?: OptionCallback | null): void {
    this.#begin('aioConnectTcp', completion, () => this.#targets.tcp('aioConnectTcp', host, port));
  }

  /** Starts connecting to a Unix socket (libnbd: `nbd_aio_connect_unix`). */
  aioConnectUnix(path: string, completion?: OptionCallback | null): void {
    this.#begin('aioConnectUnix', completion, () =>
      this.#targets.unix('aioConnectUnix', path, this.#lifecycle.settings),
    );
  }

  /** Starts the handshake on a connected stream (libnbd: `nbd_aio_connect_socket`). */
  aioConnectSocket(stream: Stream, completion?: OptionCallback | null): void {
    this.#begin('aioConnectSocket', completion, () =>
      this.#targets.stream('aioConnectSocket', stream, this.#lifecycle.settings),
    );
  }

  /**
   * Runs a program that serves on its stdin and stdout, such as `nbdkit -s`, and connects to it (libnbd:
   * `nbd_connect_command`). When the connection ends, the program sees the end of its input, and `shutdown` waits for
   * its exit. If it keeps running it gets SIGTERM and finally SIGKILL, within `closeTimeout`, but only if nothing was
   * written to it: a server that took writes is never killed. When this process ends for any reason, the program
   * gets SIGTERM.
   *
   * @param argv The program, which is looked up on PATH, and its arguments. No shell is involved.
   * @throws (rejects) NbdStrictError `EINVAL` for an empty argv, `EFAULT` for a missing one; NbdConnectionError
   *   `ENOENT` or `EACCES` for a program that cannot be run, `ENOTCONN` with its exit status and the end of its stderr
   *   when it exits.
   */
  connectCommand(argv: readonly string[], signal?: AbortSignal): Promise<void> {
    return this.#connect(
      'connectCommand',
      () => this.#targets.command('connectCommand', argv, this.#lifecycle.settings),
      signal,
    );
  }

  /**
   * Runs a server and passes it a listening socket as systemd does (libnbd: `nbd_connect_systemd_socket_activation`);
   * nbdkit and qemu-nbd support this. The server gets SIGTERM when the connection ends, and `shutdown` waits for its
   * exit without a limit. It also gets SIGTERM when this process ends for any reason.
   *
   * @throws (rejects) as {@link connectCommand}.
   */
  connectSystemdSocketActivation(argv: readonly string[], signal?: AbortSignal): Promise<void> {
    const method = 'connectSystemdSocketActivation';
    return this.#connect(method, () => this.#targets.activation(method, argv, this.#lifecycle.settings), signal);
  }

  /**
   * Connects over AF_VSOCK, for example from a virtual machine to its host (libnbd: `nbd_connect_vsock`). Node has no
   * AF_VSOCK: the program `socat` or `ncat` must be installed.
   *
   * @param cid The context ID of the peer; 2 is the host.
   * @throws (rejects) NbdConnectionError `ENOTSUP` if neither program is installed.
   */
  connectVsock(cid: number, port: number, signal?: AbortSignal): Promise<void> {
    return this.#connect(
      'connectVsock',
      () => this.#targets.vsock('connectVsock', cid, port, this.#lifecycle.settings),
      signal,
    );
  }

  /** Starts a program and starts connecting to it (libnbd: `nbd_aio_connect_command`). */
  aioConnectCommand(argv: readonly string[], completion?: OptionCallback | null): void {
    const method = 'aioConnectCommand';
    this.#begin(method, completion, () => this.#targets.command(method, argv, this.#lifecycle.settings));
  }

  /** Starts a server by socket activation (libnbd: `nbd_aio_connect_systemd_socket_activation`). */
  aioConnectSystemdSocketActivation(argv: readonly string[], completion?: OptionCallback | null): void {
    const method = 'aioConnectSystemdSocketActivation';
    this.#begin(method, completion, () => this.#targets.activation(method, argv, this.#lifecycle.settings));
  }

  /** Starts connecting over AF_VSOCK (libnbd: `nbd_aio_connect_vsock`). */
  aioConnectVsock(cid: number, port: number, completion?: OptionCallback | null): void {
    const method = 'aioConnectVsock';
    this.#begin(method, completion, () => this.#targets.vsock(method, cid, port, this.#lifecycle.settings));
  }

  /**
   * Sends a signal to the program that the connection has started (libnbd: `nbd_kill_subprocess`).
   *
   * @param signal A number or a name. Default 0, which means SIGTERM.
   * @throws NbdStrictError `ESRCH` if no program is running; `EINVAL` for an invalid signal.
   */
  killSubprocess(signal: number | `SIG${string}` = 0): void {
    killProgram('killSubprocess', this.#lifecycle.target, signal);
  }

  /**
   * The process ID of the program that the connection has started (libnbd: `nbd_get_subprocess_pid`).
   *
   * @throws NbdStrictError `ESRCH` if no program is running.
   */
  getSubprocessPid(): number {
    return programOf('getSubprocessPid', this.#lifecycle.target).pid;
  }

  #connect(method: string, makeTarget: () => Target, signal?: AbortSignal): Promise<void> {
    try {
      this.#check(method, WHEN_CREATED);
      checkSignal(method, signal);
      return this.#lifecycle.connect(makeTarget(), signal);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #begin(method: string, completion: OptionCallback | null | undefined, makeTarget: () => Target): void {
    const callback = toCallback(completion, method, 'completion');
    this.#check(method, WHEN_CREATED);
    this.#lifecycle.connect(makeTarget()).then(
      () => {
        callback?.(null);
      },
      (error: unknown) => {
        callback?.(error as NbdError);
      },
    );
  }

  #applyUri(method: string, text: unknown): Target {
    if (typeof text !== 'string') {
      throw new NbdStrictError(`${method}: the URI must be a string`, { code: 'EINVAL', syscall: method });
    }
    return this.#targets.uri(method, text, this.#lifecycle.settings);
  }

  #check(method: string, permitted: Parameters<typeof checkState>[2]): void {
    checkState(method, this.#lifecycle.phase, permitted, this.#lifecycle.error);
  }

  /**
   * The URI of this connection (libnbd: `nbd_get_uri`), including the export name and TLS settings; after socket
   * activation it names the temporary socket. Its scheme is `nbds` whenever the connection is encrypted.
   *
   * @throws NbdStateError `ENOTCONN` before connecting; NbdStrictError `EINVAL` for a stream or a command.
   */
  getUri(): string {
    this.#check('getUri', WHEN_NOT_CREATED);
    const { session, settings, target, platform } = this.#lifecycle;
    return platform.uriOf('getUri', target, settings, session?.negotiated.tls);
  }

  /** Whether the text looks like an NBD URI (libnbd: `nbd_is_uri`): only its scheme and `://` are checked. */
  static isUri(text: string): boolean {
    return isUri(text);
  }

  // ── Commands ──────────────────────────────────────────────────────────────────────────────────────────────────
  // Common to all: invalid input rejects (raw: throws) with NbdStrictError, a wrong state with NbdStateError
  // (ENOTCONN before connecting, EINVAL after), a full queue with NbdQueueFullError EAGAIN; nothing is then queued or
  // sent. An error reply is an NbdCommandError with the server's errno, and the connection stays usable. When the
  // connection ends, it is an NbdConnectionError ENOTCONN with the reason as its cause. An abort rejects with
  // signal.reason. In place of the flags a promise command takes { flags, signal }.

  /**
   * Asks the server to prefetch a range, so that a later read is fast (libnbd: `nbd_cache`). Success means that the
   * server accepted the hint, not that the bytes are cached.
   *
   * @param count Number of bytes: up to 2^32 - 1, or more with extended headers. Sent as one command, never split.
   * @param flags Must be 0: this command has no flags.
   * @throws (rejects) `EINVAL` when the server has no cache command ({@link canCache}), `count` is 0, or the range is
   *   not within the export or not aligned to the minimum block size; `ERANGE` when it is too long for one command.
   */
  cache(count: ByteCount, offset: ByteCount, flags: NbdCommandFlags = 0, signal?: AbortSignal): Promise<void> {
    if (typeof flags === 'object') return withOptions(this, 'cache', [count, offset], flags, signal);
    return this.#commands.submit(spec.CACHE, count, offset, flags, signal);
  }

  /**
   * Raw form of {@link cache} (libnbd: `nbd_aio_cache`).
   *
   * @param completion Called once when the command has finished; returning `true` retires it.
   * @returns The cookie, from 1n, unique per connection; pass it to {@link aioCommandCompleted}.
   */
  aioCache(count: ByteCount, offset: ByteCount, completion?: CompletionCallback | null, flags = 0): bigint {
    return this.#commands.submitRaw(spec.CACHE, count, offset, completion, flags);
  }

  /**
   * Reads `count` bytes (libnbd: `nbd_pread`), up to 64 MiB in one command. Resolves with all of them or rejects; there
   * are no short reads.
   *
   * Results of up to 16 KiB share their memory (`buffer.buffer`) with others, like those of `Buffer.allocUnsafe`. That
   * memory cannot be transferred: `postMessage` copies it (Node 20) or throws a DataCloneError (later versions). To
   * transfer a result to a worker, read it with {@link preadInto} into a buffer of your own.
   *
   * @throws (rejects) `EINVAL` when `count` is 0 or the range is not within the export; `ERANGE` above 64 MiB.
   */
  pread(count: number, offset: ByteCount, flags: NbdCommandFlags = 0, signal?: AbortSignal): Promise<Bytes> {
    if (typeof flags === 'object') return withOptions(this, 'pread', [count, offset], flags, signal);
    return this.#commands.read(count, offset, flags, signal) as Promise<Bytes>;
  }

  /**
   * Reads `buffer.length` bytes into the caller's buffer, which is cleared first (see `preadInitialize`). Accepts a
   * Uint8Array of any class. Once the promise has rejected, even by an abort, nothing is written into the buffer.
   */
  preadInto(buffer: Uint8Array, offset: ByteCount, flags: NbdCommandFlags = 0, signal?: AbortSignal): Promise<void> {
    if (typeof flags === 'object') return withOptions(this, 'preadInto', [buffer, offset], flags, signal);
    return this.#commands.readInto(buffer, offset, flags, signal);
  }

  /** Raw form of {@link preadInto} (libnbd: `nbd_aio_pread`). The buffer belongs to the connection until completion. */
  aioPread(buffer: Uint8Array, offset: ByteCount, completion?: CompletionCallback | null, flags = 0): bigint {
    return this.#commands.readRaw(buffer, offset, completion, flags);
  }

  /**
   * Reads, and calls `chunk` for every chunk as it arrives (libnbd: `nbd_pread_structured`).
   *
   * @param chunk Called with a view of the bytes, their offset in the export, `READ_DATA`, `READ_HOLE` or `READ_ERROR`,
   *   and the error of the latter. If it throws, the read rejects with that error.
   * @param flags `CMD_FLAG_DF` asks for a single chunk.
   */
  preadStructured(
    count: number,
    offset: ByteCount,
    chunk: ChunkCallback,
    flags: NbdCommandFlags = 0,
    signal?: AbortSignal,
  ): Promise<Bytes> {
    if (typeof flags === 'object') return withOptions(this, 'preadStructured', [count, offset, chunk], flags, signal);
    return this.#commands.readStructured(count, offset, chunk, flags, signal) as Promise<Bytes>;
  }

  /** Raw form of {@link preadStructured} (libnbd: `nbd_aio_pread_structured`). */
  aioPreadStructured(
    buffer: Uint8Array,
    offset: ByteCount,
    chunk: ChunkCallback,
    completion?: CompletionCallback | null,
    flags = 0,
  ): bigint {
    return this.#commands.readStructuredRaw(buffer, offset, chunk, completion, flags);
  }

  /**
   * Writes the buffer (libnbd: `nbd_pwrite`). The buffer must not change until the promise has settled.
   *
   * @param flags `CMD_FLAG_FUA`: the data is on permanent storage before the promise resolves.
   * @throws (rejects) `EPERM` on a read-only export, `ENOSPC` when the range is not within the export, `ERANGE` when
   *   the buffer is longer than one command may be (`getBlockSize(SIZE_PAYLOAD)`).
   */
  pwrite(buffer: Uint8Array, offset: ByteCount, flags: NbdCommandFlags = 0, signal?: AbortSignal): Promise<void> {
    if (typeof flags === 'object') return withOptions(this, 'pwrite', [buffer, offset], flags, signal);
    return this.#commands.write(buffer, offset, flags, signal);
  }

  /** Raw form of {@link pwrite} (libnbd: `nbd_aio_pwrite`). */
  aioPwrite(buffer: Uint8Array, offset: ByteCount, completion?: CompletionCallback | null, flags = 0): bigint {
    return this.#commands.writeRaw(buffer, offset, completion, flags);
  }

  /**
   * Makes every completed write durable (libnbd: `nbd_flush`). Writes that are still in flight are not covered.
   *
   * @throws (rejects) `EINVAL` when the server has no flush command ({@link canFlush}).
   */
  flush(flags: NbdCommandFlags = 0, signal?: AbortSignal): Promise<void> {
    if (typeof flags === 'object') return withOptions(this, 'flush', [], flags, signal);
    return this.#commands.submit(spec.FLUSH, 0, 0, flags, signal);
  }

  /** Raw form of {@link flush} (libnbd: `nbd_aio_flush`). */
  aioFlush(completion?: CompletionCallback | null, flags = 0): bigint {
    return this.#commands.submitRaw(spec.FLUSH, 0, 0, completion, flags);
  }

  /**
   * Discards a range that is no longer needed (libnbd: `nbd_trim`); its content is undefined afterwards.
   *
   * @param flags `CMD_FLAG_FUA`.
   * @throws (rejects) `EINVAL` when the server has no trim command ({@link canTrim}), `EPERM` on a read-only export,
   *   `ENOSPC` when the range is not within the export.
   */
  trim(count: ByteCount, offset: ByteCount, flags: NbdCommandFlags = 0, signal?: AbortSignal): Promise<void> {
    if (typeof flags === 'object') return withOptions(this, 'trim', [count, offset], flags, signal);
    return this.#commands.submit(spec.TRIM, count, offset, flags, signal);
  }

  /** Raw form of {@link trim} (libnbd: `nbd_aio_trim`). */
  aioTrim(count: ByteCount, offset: ByteCount, completion?: CompletionCallback | null, flags = 0): bigint {
    return this.#commands.submitRaw(spec.TRIM, count, offset, completion, flags);
  }

  /**
   * Writes zeroes without sending them (libnbd: `nbd_zero`).
   *
   * @param flags `CMD_FLAG_FUA`, `CMD_FLAG_NO_HOLE` (keep the range allocated), `CMD_FLAG_FAST_ZERO` (fail with
   *   `ENOTSUP` if this would be as slow as writing the zeroes).
   * @throws (rejects) `EINVAL` when the server has no such command or flag ({@link canZero}, {@link canFastZero}),
   *   `EPERM` on a read-only export, `ENOSPC` when the range is not within the export.
   */
  zero(count: ByteCount, offset: ByteCount, flags: NbdCommandFlags = 0, signal?: AbortSignal): Promise<void> {
    if (typeof flags === 'object') return withOptions(this, 'zero', [count, offset], flags, signal);
    return this.#commands.submit(spec.ZERO, count, offset, flags, signal);
  }

  /** Raw form of {@link zero} (libnbd: `nbd_aio_zero`). */
  aioZero(count: ByteCount, offset: ByteCount, completion?: CompletionCallback | null, flags = 0): bigint {
    return this.#commands.submitRaw(spec.ZERO, count, offset, completion, flags);
  }

  /**
   * Queries the extents of a range, with 32-bit lengths and flags (libnbd: `nbd_block_status`). A server may report
   * less than the requested range, but at least one extent: continue from where the reply ends.
   *
   * Without `extent` the promise resolves with the extents by context name. With it, `extent` is called once per
   * context; if it throws, the promise rejects with that error.
   *
   * @param flags `CMD_FLAG_REQ_ONE`: one extent per context.
   * @throws (rejects) `ENOTSUP` when no metadata context was negotiated, `EINVAL` when the range is not within the
   *   export.
   */
  blockStatus(
    count: ByteCount,
    offset: ByteCount,
    flags?: NbdCommandFlags,
    signal?: AbortSignal,
  ): Promise<Map<string, Extents>>;
  blockStatus(
    count: ByteCount,
    offset: ByteCount,
    extent: ExtentCallback<Uint32Array>,
    flags?: NbdCommandFlags,
    signal?: AbortSignal,
  ): Promise<void>;
  blockStatus(count: ByteCount, offset: ByteCount, ...rest: unknown[]): Promise<unknown> {
    const called = statusWithOptions(this, 'blockStatus', [count, offset], rest);
    return called ?? this.#status(spec.BLOCK_STATUS, count, offset, rest);
  }

  /** {@link blockStatus} with 64-bit lengths and flags as bigints (libnbd: `nbd_block_status_64`). */
  blockStatus64(
    count: ByteCount,
    offset: ByteCount,
    flags?: NbdCommandFlags,
    signal?: AbortSignal,
  ): Promise<Map<string, Extents<bigint>>>;
  blockStatus64(
    count: ByteCount,
    offset: ByteCount,
    extent: ExtentCallback<BigUint64Array>,
    flags?: NbdCommandFlags,
    signal?: AbortSignal,
  ): Promise<void>;
  blockStatus64(count: ByteCount, offset: ByteCount, ...rest: unknown[]): Promise<unknown> {
    const called = statusWithOptions(this, 'blockStatus64', [count, offset], rest);
    return called ?? this.#status(spec.BLOCK_STATUS_64, count, offset, rest);
  }

  /**
   * {@link blockStatus64} for only some of the negotiated contexts (libnbd: `nbd_block_status_filter`).
   *
   * @throws (rejects) `ENOTSUP` without extended headers, `EINVAL` when the server does not support filters
   *   ({@link canBlockStatusPayload}) or a context was not negotiated.
   */
  blockStatusFilter(
    count: ByteCount,
    offset: ByteCount,
    contexts: readonly string[],
    flags?: NbdCommandFlags,
    signal?: AbortSignal,
  ): Promise<Map<string, Extents<bigint>>>;
  blockStatusFilter(
    count: ByteCount,
    offset: ByteCount,
    contexts: readonly string[],
    extent: ExtentCallback<BigUint64Array>,
    flags?: NbdCommandFlags,
    signal?: AbortSignal,
  ): Promise<void>;
  blockStatusFilter(
    count: ByteCount,
    offset: ByteCount,
    contexts: readonly string[],
    ...rest: unknown[]
  ): Promise<unknown> {
    const called = statusWithOptions(this, 'blockStatusFilter', [count, offset, contexts], rest);
    return called ?? this.#status(spec.BLOCK_STATUS_FILTER, count, offset, rest, contexts);
  }

  #status(
    command: spec.CommandSpec,
    count: ByteCount,
    offset: ByteCount,
    rest: unknown[],
    contexts?: readonly string[],
  ): Promise<unknown> {
    if (typeof rest[0] === 'function') {
      const [extent, flags = 0, signal] = rest as [ExtentCallback, number | undefined, AbortSignal | undefined];
      return this.#commands.status(command, count, offset, extent, flags, signal, contexts);
    }
    const [flags = 0, signal] = rest as [number | undefined, AbortSignal | undefined];
    return this.#commands.statusMap(command, count, offset, flags, signal, contexts);
  }

  /** Raw form of {@link blockStatus} (libnbd: `nbd_aio_block_status`). */
  aioBlockStatus(
    count: ByteCount,
    offset: ByteCount,
    extent: ExtentCallback<Uint32Array>,
    completion?: CompletionCallback | null,
    flags = 0,
  ): bigint {
    return this.#commands.statusRaw(spec.BLOCK_STATUS, count, offset, extent as ExtentCallback, completion, flags);
  }

  /** Raw form of {@link blockStatus64} (libnbd: `nbd_aio_block_status_64`). */
  aioBlockStatus64(
    count: ByteCount,
    offset: ByteCount,
    extent: ExtentCallback<BigUint64Array>,
    completion?: CompletionCallback | null,
    flags = 0,
  ): bigint {
    return this.#commands.statusRaw(spec.BLOCK_STATUS_64, count, offset, extent as ExtentCallback, completion, flags);
  }

  /** Raw form of {@link blockStatusFilter} (libnbd: `nbd_aio_block_status_filter`). */
  aioBlockStatusFilter(
    count: ByteCount,
    offset: ByteCount,
    contexts: readonly string[],
    extent: ExtentCallback<BigUint64Array>,
    completion?: CompletionCallback | null,
    flags = 0,
  ): bigint {
    const command = spec.BLOCK_STATUS_FILTER;
    return this.#commands.statusRaw(command, count, offset, extent as ExtentCallback, completion, flags, contexts);
  }

  // ── Cookies ───────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Whether a raw command has completed (libnbd: `nbd_aio_command_completed`). May be called in any state.
   *
   * @returns true if it succeeded, which retires it; false while it is pending, and for cookies that were never issued
   *   or are already retired.
   * @throws The command's error if it failed, which retires it; NbdStrictError `EINVAL` for cookie 0.
   */
  aioCommandCompleted(cookie: ByteCount): boolean {
    return this.#lifecycle.completions.completed(cookie);
  }

  /**
   * The cookie of the oldest command that has completed but is not retired (libnbd: `nbd_aio_peek_command_completed`);
   * 0n while commands are in flight but none has completed.
   *
   * @throws NbdStateError `EINVAL` when nothing is in flight and nothing awaits retirement.
   */
  aioPeekCommandCompleted(): bigint {
    return this.#lifecycle.completions.peek(this.#lifecycle.inFlight);
  }

  /**
   * Number of commands that were accepted but have not completed, including waiting ones (libnbd: `nbd_aio_in_flight`).
   * An aborted command counts until the server has replied to it.
   *
   * @throws NbdStateError `ENOTCONN` before connecting, `EINVAL` while connecting.
   */
  aioInFlight(): number {
    this.#check('aioInFlight', WHEN_STARTED);
    return this.#lifecycle.inFlight;
  }

  // ── Closing ───────────────────────────────────────────────────────────────────────────────────────────────────

  /**
   * Closes the connection gracefully (libnbd: `nbd_shutdown`): refuses new commands, lets those in flight settle, sends
   * NBD_CMD_DISC and waits until the server has closed, for at most `closeTimeout`. While negotiating it sends
   * NBD_OPT_ABORT. Never rejects because of the connection's state; safe to call more than once.
   *
   * Then it waits for the program that the connection has started, if any. A program that may still hold data that
   * was written to it is waited for without a limit: `closeTimeout` does not apply to it.
   *
   * @param flags `SHUTDOWN_ABANDON_PENDING`: commands that have not been sent yet (including those issued in this tick)
   *   reject with `ENOTCONN` instead of being sent.
   * @param signal Stops waiting: closes the connection and ends the program with SIGTERM, or with SIGKILL a second
   *   later.
   * @throws (rejects) NbdStrictError `EINVAL` for an unknown flag; NbdConnectionError `EIO` when a program that took
   *   writes exits with a status other than 0, or by a signal that was not sent from here, unless commands have already
   *   failed for that reason; the signal's reason.
   */
  async shutdown(flags: NbdCommandFlags = 0, signal?: AbortSignal): Promise<void> {
    if (typeof flags === 'object') return withOptions(this, 'shutdown', [], flags, signal);
    checkBits('shutdown', flags, SHUTDOWN_ABANDON_PENDING);
    const ended = this.#lifecycle.shutdown(flags === SHUTDOWN_ABANDON_PENDING);
    await (signal === undefined ? ended : abortable(ended, signal, this.#lifecycle));
  }

  /**
   * Sends NBD_CMD_DISC after the commands in flight (libnbd: `nbd_aio_disconnect`); `close` is emitted at the end.
   * Later commands are refused. Not every server still replies to commands in flight; `shutdown` waits for the replies
   * first.
   *
   * @throws NbdStateError `EINVAL` unless the connection is connected.
   */
  aioDisconnect(flags = 0): void {
    this.#check('aioDisconnect', WHEN_CONNECTED);
    this.#lifecycle.disconnectNow('aioDisconnect', flags);
  }

  /**
   * Closes the connection at once (libnbd: `nbd_close`): the state has changed and the socket is destroyed when it
   * returns, pending commands reject with `ENOTCONN`, and no timer or listener remains. Idempotent. With more than
   * 1,024 waiting commands, the first ones are settled before it returns and have an error each; the others are settled
   * in later turns of the event loop, in order, and share one error. `close` is emitted after the last one.
   */
  close(): void {
    this.#lifecycle.close();
  }

  /** Calls {@link shutdown}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#lifecycle.shutdown();
  }

  /** Undoes {@link unref}: the connection keeps the process alive again. */
  ref(): this {
    this.#lifecycle.ref();
    return this;
  }

  /** Lets the process exit while the connection is idle. Commands in flight still keep the process alive. */
  unref(): this {
    this.#lifecycle.unref();
    return this;
  }
}
