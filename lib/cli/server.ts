// Opening the SERVER operand of a command: a URI, or `[ CMD ARGS ]`, a server that is started for this one command.

import { NbdConnection, type NbdConnectionOptions, SHUTDOWN_ABANDON_PENDING } from './sdk.js';
import type { Operand, ParsedArguments } from './arguments.js';
import { type CommandContext, UsageError } from './command.js';
import { onImpatience } from './leaving.js';

/** How the usage of commands names the operand. */
export const SERVER = 'NBD-URI | [ CMD ARGS ... ]';

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
  // As libnbd's tools: who writes the URI may name local certificates.
  const connection = new NbdConnection({ uriAllowLocalFile: true, ...options });
  context.onEnd((failed) => end(connection, failed, context));
  onImpatience(() => {
    if (pidOf(connection) !== null) connection.killSubprocess('SIGKILL');
  });
  if (isUri(operand)) await connection.connectUri(operand.word, context.signal);
  else await connection.connectSystemdSocketActivation(operand.command, context.signal);
  if (context.verbose) await describeConnection(connection, context);
  return connection;
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
