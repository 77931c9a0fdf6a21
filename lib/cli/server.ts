// Opening the SERVER operand of a command: a URI, or `[ CMD ARGS ]`, a server that is started for this one command.

import { NbdConnection, type NbdConnectionOptions } from './sdk.js';
import type { Operand, ParsedArguments } from './arguments.js';
import { type CommandContext, UsageError } from './command.js';

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

/**
 * Connects. The connection is shut down when the command ends: in good order when it came to its end, at once when it
 * was interrupted.
 */
export async function openServer(
  operand: Operand,
  context: CommandContext,
  options: NbdConnectionOptions = {},
): Promise<NbdConnection> {
  // As libnbd's tools: who writes the URI may name local certificates.
  const connection = new NbdConnection({ uriAllowLocalFile: true, ...options });
  context.onEnd(async () => {
    if (context.signal.aborted) connection.close();
    else await connection.shutdown();
  });
  if (isUri(operand)) await connection.connectUri(operand.word, context.signal);
  else await connection.connectSystemdSocketActivation(operand.command, context.signal);
  if (context.verbose) await describeConnection(connection, context);
  return connection;
}

async function describeConnection(connection: NbdConnection, context: CommandContext): Promise<void> {
  const { inspect } = await import('node:util');
  context.warn(inspect(connection, { breakLength: Infinity, colors: false }));
}

/** The canonical URI of the export that is open, or named; null for a server that was started for us. */
export function canonicalUri(connection: NbdConnection, operand: Operand): string | null {
  return isUri(operand) ? connection.getUri() : null;
}
