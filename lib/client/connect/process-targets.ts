// Targets that are reached through a program that this process runs: commands, socket activation, and helpers for
// transports that Node lacks, ssh and vsock.

import type { Transport } from '../../transport/transport.js';
import { dialUnix } from '../../transport/dial.js';
import { abstractCommands, firstAvailable, nameOf, sshCommand, vsockCommands } from '../../transport/programs.js';
import type { Running, Subprocess, SubprocessOptions } from '../../transport/subprocess.js';
import { findAbstract } from '../../transport/unix-path.js';
import { MAX_U32 } from '../../util/u64.js';
import type { SshUriParts } from '../../protocol/uri-parts.js';
import { refuse, shown } from '../options/checks.js';
import type { Target, TargetLocation } from './target.js';
import type { Settings } from '../options/options.js';

/** Milliseconds. Helpers only forward bytes: they have nothing to finish once the connection has ended. */
const HELPER_GRACE = 500;
/** Milliseconds, if `closeTimeout` is 0 (no limit). */
const DEFAULT_GRACE = 5000;

/** A program and its arguments. */
function checkArgv(method: string, value: unknown): string[] {
  if (value === undefined || value === null) throw refuse(method, 'argv is missing', 'EFAULT');
  if (!Array.isArray(value)) throw refuse(method, `argv must be an array of strings, not ${shown(value)}`);
  if (value.length === 0 || value[0] === '') throw refuse(method, 'missing command name in argv');
  return value.map((argument: unknown) => {
    if (typeof argument !== 'string') throw refuse(method, `argv must be strings, not ${shown(argument)}`);
    if (argument.includes('\0')) throw refuse(method, 'an argument cannot contain a NUL');
    return argument;
  });
}

function checkNumber(method: string, name: string, value: unknown): number {
  const number = typeof value === 'string' && /^\d{1,10}$/.test(value) ? Number(value) : value;
  if (typeof number === 'number' && Number.isInteger(number) && number >= 0 && number <= MAX_U32) return number;
  throw refuse(method, `${name} must be from 0 to ${MAX_U32}, not ${shown(value)}`);
}

/** A target whose subprocess becomes known once it runs. */
class ProcessTarget implements Target {
  readonly description: string;
  readonly mayRetry = false;
  readonly certificateName: string;
  readonly #run: (signal: AbortSignal, target: ProcessTarget) => Promise<Transport>;
  subprocess: Subprocess | null = null;
  location: TargetLocation | null = null;

  constructor(
    description: string,
    run: (signal: AbortSignal, target: ProcessTarget) => Promise<Transport>,
    certificateName = '',
  ) {
    this.description = description;
    this.#run = run;
    this.certificateName = certificateName;
  }

  open(signal: AbortSignal): Promise<Transport> {
    return this.#run(signal, this);
  }
}

function subprocessOptions(settings: Settings): SubprocessOptions {
  // 40 % to react to the end of the input, 40 % to SIGTERM, and the rest to SIGKILL.
  return { errorOutput: settings.subprocessStderr, grace: (settings.closeTimeout || DEFAULT_GRACE) * 0.4 };
}

/** The module is loaded on demand: most connections start no program. */
async function run(command: readonly string[], options: SubprocessOptions, signal: AbortSignal): Promise<Running> {
  const { runCommand } = await import('../../transport/subprocess.js');
  return runCommand(command, options, signal);
}

/** A program that serves on its stdin and stdout. */
export function commandTarget(method: string, argv: unknown, settings: Settings): Target {
  const command = checkArgv(method, argv);
  return new ProcessTarget(`the command ${nameOf(command[0] ?? '')}`, async (signal, target) => {
    const { transport, subprocess } = await run(command, subprocessOptions(settings), signal);
    target.subprocess = subprocess;
    return transport;
  });
}

/** A program that serves on a listening socket that it inherits. */
export function activationTarget(method: string, argv: unknown, settings: Settings): Target {
  const command = checkArgv(method, argv);
  const socketName = settings.socketActivationName;
  return new ProcessTarget(`the command ${nameOf(command[0] ?? '')}`, async (signal, target) => {
    const { activate } = await import('../../transport/socket-activation.js');
    const activated = await activate(command, { ...subprocessOptions(settings), socketName }, signal);
    target.subprocess = activated.subprocess;
    target.location = { transport: 'unix', socketPath: activated.path };
    return activated.transport;
  });
}

/** AF_VSOCK through socat or ncat. The helper is not exposed as the connection's subprocess. */
export function vsockTarget(method: string, cid: unknown, port: unknown, settings: Settings): Target {
  const where = { cid: checkNumber(method, 'cid', cid), port: checkNumber(method, 'port', port) };
  const commands = vsockCommands(where.cid, where.port);
  const target = new ProcessTarget(`vsock ${String(cid)}:${String(port)}`, async (signal) => {
    const command = await firstAvailable(commands, 'AF_VSOCK');
    const { transport } = await run(
      command,
      { ...subprocessOptions(settings), grace: HELPER_GRACE, isHelper: true },
      signal,
    );
    return transport;
  });
  target.location = { transport: 'vsock', ...where };
  return target;
}

/** An abstract Unix socket, for versions of Node that would change its name. */
export function abstractTarget(path: string, description: string, settings: Settings): Target {
  const target = new ProcessTarget(description, async (signal) => {
    const found = await findAbstract(path);
    signal.throwIfAborted();
    // The listener is another Node that changes names in the same way.
    if (found === 'padded') return dialUnix(path, signal);
    if (found === 'absent') throw Object.assign(new Error('nothing listens on it'), { code: 'ECONNREFUSED' });
    const command = await firstAvailable(abstractCommands(path), 'an abstract Unix socket before Node 22');
    const { transport } = await run(command, { ...subprocessOptions(settings), grace: HELPER_GRACE }, signal);
    return transport;
  });
  target.location = { transport: 'unix', socketPath: path };
  return target;
}

/** An NBD server that is reached through an ssh server. */
export function sshTarget(method: string, uri: SshUriParts, settings: Settings): Target {
  const { host, port, user, compress, socketPath, nbdPort } = uri;
  const remote = socketPath === undefined ? { port: nbdPort } : { socketPath };
  let command: string[];
  try {
    command = sshCommand({ host, port, user, compress, remote });
  } catch (error) {
    throw refuse(method, (error as Error).message);
  }
  const open = async (signal: AbortSignal, target: ProcessTarget): Promise<Transport> => {
    const options = { ...subprocessOptions(settings), grace: HELPER_GRACE, isHelper: true };
    const { transport, subprocess } = await run(command, options, signal);
    target.subprocess = subprocess;
    return transport;
  };
  const target = new ProcessTarget(`${host} by ssh`, open, host);
  const { transport } = uri;
  target.location = {
    transport,
    host,
    port,
    compress,
    nbdPort,
    ...(user === undefined ? {} : { user }),
    ...(socketPath === undefined ? {} : { socketPath }),
  };
  return target;
}
