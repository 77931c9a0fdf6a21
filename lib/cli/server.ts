// Opens the SERVER operand of a command: a URI, or `[ CMD ARGS ]`, a server that is started for this one command.

import { keepTrying } from '../client/connect/waiting.js';
import { NbdConnection, type NbdConnectionOptions, SHUTDOWN_ABANDON_PENDING } from './sdk.js';
import type { Operand, ParsedArguments } from './arguments.js';
import type { CommandContext } from './command.js';
import type { OptionSpec } from './command-spec.js';
import { UsageError } from './errors.js';
import { messageOf } from './output/failure.js';
import { onImpatience } from './leaving.js';
import { parseSeconds } from './output/text.js';

/** The operand as the usage of a command shows it. */
export const SERVER = 'NBD-URI | [ CMD ARGS ... ]';

/** Options of every command that connects. */
export const CONNECT_OPTIONS: readonly OptionSpec[] = [
  {
    names: ['timeout'],
    takes: 'value',
    value: 'SECONDS',
    yields: true,
    help: 'Give up when the server makes no progress on a request for this long. Default 0: never.',
  },
  {
    names: ['connect-timeout'],
    takes: 'value',
    value: 'SECONDS',
    yields: true,
    help: 'Give up when connecting, including TLS and the handshake, takes longer than this; 0: never. Default 10.',
  },
  {
    names: ['wait'],
    takes: 'value',
    value: 'SECONDS',
    yields: true,
    help: 'Keep trying this long if no server is listening yet. Default 0: fail at once.',
  },
  {
    names: ['export-name-only'],
    yields: true,
    help: 'Send only NBD_OPT_EXPORT_NAME: for old servers that disconnect when they receive an unknown option.',
  },
];

/** For commands that choose themselves how much is in flight: the connection's own limits are out of the way. */
export const DEEP_WINDOW = { maxInFlight: 1024, maxInFlightBytes: 256 * 1024 * 1024 } as const;

/** Milliseconds that connections beyond the first may take to open. */
const GROW_TIME = 2000;

/** The operand of a command that takes exactly one server. */
export function onlyServer(args: ParsedArguments): Operand {
  const [operand, extra] = args.operands;
  if (operand === undefined) throw new UsageError('missing NBD-URI or [ CMD ARGS ... ]');
  if (extra !== undefined) throw new UsageError('expected one server', { hint: commandHint(args) });
  return operand;
}

const commandHint = (args: ParsedArguments): string =>
  args.operands.some((each) => 'word' in each && each.word.includes(']'))
    ? 'write [ CMD ARGS ... ] with spaces around both brackets'
    : 'quote a URI that contains & or spaces';

/** Whether an operand is a URI, so that the server outlives this command. */
export const isUri = (operand: Operand): operand is { readonly word: string } => 'word' in operand;

/** The connection settings given on the command line. */
export function connectionSettings({ args }: CommandContext): NbdConnectionOptions {
  const timeout = args.value('timeout');
  const connectTimeout = args.value('connect-timeout');
  return {
    // As in libnbd's tools, the URI is trusted: it may name local certificates.
    uriAllowLocalFile: true,
    ...(args.has('export-name-only') ? { exportNameOnly: true } : {}),
    ...(timeout === undefined ? {} : { requestTimeout: parseSeconds('timeout', timeout) }),
    ...(connectTimeout === undefined ? {} : { connectTimeout: parseSeconds('connect-timeout', connectTimeout) }),
  };
}

/** Milliseconds after a failure or Ctrl-C within which connections must be shut down. */
const GOODBYE_LIMIT = 500;
/** The time at which this limit ends for all connections of the command. */
let goodbyeEnd: number | null = null;

/** Milliseconds after which the user is shown what the command is waiting for. */
const SILENCE = 2000;

/**
 * Connects. The connection is shut down when the command ends. The command then waits for the exit of a server that it
 * started, however long that takes, because written data is safe only after the server has stored it. If the server
 * fails, the command fails. After Ctrl-C, the server is asked to exit and the command does not wait any longer.
 */
export async function openServer(
  operand: Operand,
  context: CommandContext,
  options: NbdConnectionOptions = {},
): Promise<NbdConnection> {
  const settings = { ...connectionSettings(context), ...options };
  let connection = new NbdConnection(settings);
  context.onEnd((failed) => end(connection, failed, context, () => pidOf(connection)));
  onImpatience(() => {
    if (pidOf(connection) !== null) connection.killSubprocess('SIGKILL');
  });
  if (isUri(operand)) {
    await keepTrying(waitTime(context), context.signal, () => {
      if (!connection.aioIsCreated()) connection = new NbdConnection(settings);
      return connection.connectUri(operand.word, context.signal);
    });
  } else {
    await connection.connectSystemdSocketActivation(operand.command, context.signal);
  }
  if (context.verbose) await describeConnection(connection, context);
  return connection;
}

/** Milliseconds to keep trying while no server is listening yet. */
export function waitTime({ args }: CommandContext): number {
  const wait = args.value('wait');
  return wait === undefined ? 0 : parseSeconds('wait', wait);
}

/**
 * Opens up to `count` more connections to an export that is already open. They only make the command faster, so a
 * connection that cannot be opened within two seconds, for example because the server limits its clients, is left out.
 */
export async function openFurther(
  operand: Operand,
  context: CommandContext,
  count: number,
  options: NbdConnectionOptions = {},
): Promise<NbdConnection[]> {
  if (!isUri(operand) || count <= 0) return [];
  const settings = { ...connectionSettings(context), ...options, connectTimeout: GROW_TIME };
  const opened = await Promise.all(
    Array.from({ length: count }, async () => {
      const connection = new NbdConnection(settings);
      context.onEnd((failed) => end(connection, failed, context));
      try {
        await connection.connectUri(operand.word, context.signal);
        return connection;
      } catch (error) {
        connection.close();
        context.signal.throwIfAborted();
        if (context.verbose) context.warn(`continuing with fewer connections: ${messageOf(error)}`);
        return null;
      }
    }),
  );
  return opened.filter((connection) => connection !== null);
}

/** What is shut down when the command ends. */
type Ending = Pick<NbdConnection, 'shutdown' | 'close'>;

/**
 * Shuts down in every case: an abrupt end makes some servers abort, and they may have other clients. `serverPid` is that
 * of a server that was started for the connection.
 */
export async function end(
  connection: Ending,
  failed: boolean,
  context: CommandContext,
  serverPid: () => number | null = () => null,
): Promise<void> {
  const { signal } = context;
  const pid = serverPid();
  const timers = [
    setTimeout(() => {
      if (serverPid() !== null) context.warn(`waiting for the server (process ${pid}) to store its data and exit`);
    }, SILENCE),
  ];
  const limit = new Promise<void>((resolve) => {
    const onAbort = (): void => {
      timers.push(setTimeout(resolve, 2 * GOODBYE_LIMIT));
    };
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort);
  });
  if (failed) {
    goodbyeEnd ??= Date.now() + GOODBYE_LIMIT;
    timers.push(setTimeout(() => connection.close(), Math.max(0, goodbyeEnd - Date.now())));
  }
  try {
    await Promise.race([connection.shutdown(failed ? SHUTDOWN_ABANDON_PENDING : 0), limit]);
  } finally {
    for (const timer of timers) clearTimeout(timer);
  }
  if (!signal.aborted) return;
  connection.close();
  if (serverPid() === null) return;
  context.warn(`interrupted: the server (process ${pid}) was asked to exit, and is still running`);
}

/** Process id of the server that was started for the connection; null if there is none, or after its exit. */
function pidOf(connection: NbdConnection): number | null {
  try {
    return connection.getSubprocessPid();
  } catch {
    return null;
  }
}

export async function describeConnection(connection: object, context: CommandContext): Promise<void> {
  const { inspect } = await import('node:util');
  context.warn(inspect(connection, { breakLength: Infinity, colors: false }));
}

/** The canonical URI of the export; null for a server that was started for this command. */
export function canonicalUri(connection: Pick<NbdConnection, 'getUri'>, operand: Operand): string | null {
  return isUri(operand) ? connection.getUri() : null;
}
