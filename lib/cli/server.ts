// Opening the SERVER operand of a command: a URI, or `[ CMD ARGS ]`, a server that is started for this one command.

import { setTimeout as delay } from 'node:timers/promises';
import { NbdConnection, NbdConnectionError, type NbdConnectionOptions, SHUTDOWN_ABANDON_PENDING } from './sdk.js';
import type { Operand, ParsedArguments } from './arguments.js';
import type { CommandContext } from './command.js';
import type { OptionSpec } from './command-spec.js';
import { UsageError } from './errors.js';
import { messageOf } from './output/failure.js';
import { onImpatience } from './leaving.js';
import { parseSeconds } from './output/text.js';

/** How the usage of commands names the operand. */
export const SERVER = 'NBD-URI | [ CMD ARGS ... ]';

/** What every command that connects takes. */
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
    help: 'Give up when connecting, TLS and the handshake take longer than this together; 0: never. Default 10.',
  },
  {
    names: ['wait'],
    takes: 'value',
    value: 'SECONDS',
    yields: true,
    help: 'Keep trying for this long while no server is listening yet. Default 0: fail at once.',
  },
  {
    names: ['export-name-only'],
    yields: true,
    help: 'Send no option but NBD_OPT_EXPORT_NAME: for old servers that hang up at those they do not know.',
  },
];

/** How long the connections beyond the first may take, in milliseconds. */
const GROW_TIME = 2000;

/** The one server that a command takes. */
export function onlyServer(args: ParsedArguments): Operand {
  const [operand, extra] = args.operands;
  if (operand === undefined) throw new UsageError('missing NBD-URI or [ CMD ARGS ... ]');
  if (extra !== undefined) throw new UsageError('one server is expected', { hint: commandHint(args) });
  return operand;
}

const commandHint = (args: ParsedArguments): string =>
  args.operands.some((each) => 'word' in each && each.word.includes(']'))
    ? 'write [ CMD ARGS ... ] with spaces around both brackets'
    : 'quote a URI that holds & or spaces';

/** Whether an operand is the URI of a server that goes on running. */
export const isUri = (operand: Operand): operand is { readonly word: string } => 'word' in operand;

/** The settings of a connection that the command line decides. */
export function connectionSettings({ args }: CommandContext): NbdConnectionOptions {
  const timeout = args.value('timeout');
  const connectTimeout = args.value('connect-timeout');
  return {
    // As libnbd's tools: who writes the URI may name local certificates.
    uriAllowLocalFile: true,
    ...(args.has('export-name-only') ? { exportNameOnly: true } : {}),
    ...(timeout === undefined ? {} : { requestTimeout: parseSeconds('timeout', timeout) }),
    ...(connectTimeout === undefined ? {} : { connectTimeout: parseSeconds('connect-timeout', connectTimeout) }),
  };
}

/** How long after a failure, or Ctrl-C, the goodbye may take, and a server that was started for us its end. */
const GOODBYE_LIMIT = 500;
/** When it is over for all connections of the command. */
let goodbyeEnd: number | null = null;

/** From when on a person wants to know what is waited for. */
const SILENCE = 2000;

/**
 * Connects. The connection is shut down when the command ends. A server that was started for it is waited for as long
 * as it takes: what it was given is safe when it has put it away. Its failure is the command's. After Ctrl-C it is
 * asked to end, and left to it.
 */
export async function openServer(
  operand: Operand,
  context: CommandContext,
  options: NbdConnectionOptions = {},
): Promise<NbdConnection> {
  const wait = context.args.value('wait');
  const until = performance.now() + (wait === undefined ? 0 : parseSeconds('wait', wait));
  const settings = { ...connectionSettings(context), ...options };
  let connection = new NbdConnection(settings);
  context.onEnd((failed) => end(connection, failed, context));
  onImpatience(() => {
    if (pidOf(connection) !== null) connection.killSubprocess('SIGKILL');
  });
  if (isUri(operand)) {
    for (let pause = FIRST_PAUSE; ; pause = Math.min(pause * 2, LONGEST_PAUSE)) {
      try {
        await connection.connectUri(operand.word, context.signal);
        break;
      } catch (error) {
        const left = until - performance.now();
        if (left <= 0 || !mayComeYet(error)) throw error;
        connection.close();
        // An abort ends the pause; connectUri() then rejects with its reason.
        await delay(Math.min(pause, left), undefined, { signal: context.signal }).catch(() => undefined);
        connection = new NbdConnection(settings);
      }
    }
  } else {
    await connection.connectSystemdSocketActivation(operand.command, context.signal);
  }
  if (context.verbose) await describeConnection(connection, context);
  return connection;
}

/** Milliseconds between two tries to reach a server that is not up yet. */
const FIRST_PAUSE = 50;
const LONGEST_PAUSE = 1000;

/** How it fails where no server listens yet, or something in front of it (a proxy, a name server) knows none yet. */
const ABSENT = new Set([
  ...['ECONNREFUSED', 'ENOENT', 'ECONNRESET', 'EPIPE', 'EHOSTUNREACH', 'ENETUNREACH', 'ETIMEDOUT', 'EAI_AGAIN'],
  // A Unix socket whose backlog is full.
  'EAGAIN',
]);

const mayComeYet = (error: unknown): boolean => error instanceof NbdConnectionError && ABSENT.has(error.code);

/**
 * Up to `count` further connections to an export that is open already. They only make it faster: those that do not come
 * within two seconds, because the server takes no more clients or for any other reason, are done without.
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
        if (context.verbose) context.warn(`going on without a further connection: ${messageOf(error)}`);
        return null;
      }
    }),
  );
  return opened.filter((connection) => connection !== null);
}

/** An abrupt end makes some servers abort, and they may serve others; so there is a goodbye in any case. */
async function end(connection: NbdConnection, failed: boolean, context: CommandContext): Promise<void> {
  const { signal } = context;
  const pid = pidOf(connection);
  const timers = [
    setTimeout(() => {
      if (pidOf(connection) !== null) context.warn(`waiting for the server (process ${pid}) to put its data away`);
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
  if (pidOf(connection) === null) return;
  context.warn(`interrupted: the server (process ${pid}) was asked to end, and is still at it`);
}

/** The server that was started for the connection, as long as it runs. */
function pidOf(connection: NbdConnection): number | null {
  try {
    return connection.getSubprocessPid();
  } catch {
    return null;
  }
}

async function describeConnection(connection: NbdConnection, context: CommandContext): Promise<void> {
  const { inspect } = await import('node:util');
  context.warn(inspect(connection, { breakLength: Infinity, colors: false }));
}

/** The canonical URI of the export that is open, or named; null for a server that was started for us. */
export function canonicalUri(connection: NbdConnection, operand: Operand): string | null {
  return isUri(operand) ? connection.getUri() : null;
}
