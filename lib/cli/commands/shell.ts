// `nbd shell`, the counterpart of nbdsh: a JavaScript prompt with a connection `h` and all exports of the package.

import { start } from 'node:repl';
import * as sdk from '../../index.js';
import type { Operand, ParsedArguments } from '../arguments.js';
import type { CliCommand, CommandContext } from '../command.js';
import { UsageError } from '../errors.js';
import { CONNECT_OPTIONS, connectionSettings, openServer } from '../server.js';
import { CliError } from '../output/text.js';

export const shell: CliCommand = {
  spec: {
    name: 'shell',
    summary: 'open a JavaScript prompt with a connection, like nbdsh',
    usage: ['[-u URI] [--base-allocation] [--opt-mode] [-n] [-c CODE ...] [NBD-URI | [ CMD ARGS ... ]]'],
    description: [
      'h is the connection, nbd contains all exports of the package nbd-sdk, and await works at the prompt.',
      'With -c, the given code is run instead. Several -c run one after the other and share their variables; -c - reads ' +
        'the code from standard input. After an error, the exit code is 1.',
    ],
    options: [
      { names: ['uri', 'connect'], short: 'u', takes: 'value', value: 'URI', help: 'Connect to this server.' },
      { names: ['command'], short: 'c', takes: 'value', value: 'CODE', help: 'Run this code; - is standard input.' },
      { names: ['base-allocation'], help: 'Request the metadata context base:allocation.' },
      { names: ['opt-mode'], help: 'Stop in option mode: h.optGo() opens the export.' },
      { names: ['n'], short: 'n', help: 'Do not create the connection h.' },
      ...CONNECT_OPTIONS,
    ],
    examples: [
      ['nbd shell nbd://localhost', 'A prompt: await h.pread(512, 0)'],
      [`nbd shell -u nbd://localhost -c 'console.log(h.getSize())'`, 'One line of code.'],
      ['nbd shell --opt-mode nbd://localhost', 'Try the options of the handshake one by one.'],
    ],
  },
  run,
};

async function run(args: ParsedArguments, context: CommandContext): Promise<void> {
  const uri = args.value('uri');
  const [operand, extra] = args.operands;
  if (extra !== undefined || (operand !== undefined && uri !== undefined)) throw new UsageError('expected one server');
  const server: Operand | undefined = uri === undefined ? operand : { word: uri };
  const globals: Record<string, unknown> = { nbd: sdk };
  if (!args.has('n')) {
    const options = {
      ...(args.has('base-allocation') ? { metaContexts: [sdk.CONTEXT_BASE_ALLOCATION] } : {}),
      ...(args.has('opt-mode') ? { optMode: true } : {}),
    };
    if (server === undefined) {
      const connection = new sdk.NbdConnection({
        ...connectionSettings(context),
        uriAllowLocalFile: false,
        ...options,
      });
      context.onEnd(() => connection.shutdown());
      globals['h'] = connection;
    } else {
      globals['h'] = await openServer(server, context, options);
    }
  } else if (server !== undefined) {
    throw new UsageError('you cannot use -n together with a server');
  }
  const codes = args.options.filter(({ name }) => name === 'command').map(({ value }) => value ?? '');
  if (codes.length > 0) await runCodes(codes, globals);
  else await prompt(globals, context);
}

const AsyncFunction = (async () => Promise.resolve()).constructor as new (
  ...parts: string[]
) => (...values: unknown[]) => Promise<unknown>;

/** Runs all code as the body of one async function: await works, and each -c sees the variables of the ones before. */
async function runCodes(codes: readonly string[], globals: Record<string, unknown>): Promise<void> {
  const texts = await Promise.all(codes.map(async (code) => (code === '-' ? standardInput() : code)));
  try {
    await new AsyncFunction(...Object.keys(globals), `'use strict';${texts.join('\n;')}\n`)(...Object.values(globals));
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    throw new CliError(`command line script failed: ${message}`, { cause });
  }
}

async function standardInput(): Promise<string> {
  let text = '';
  for await (const chunk of process.stdin.setEncoding('utf8')) text += String(chunk);
  return text;
}

function prompt(globals: Record<string, unknown>, context: CommandContext): Promise<void> {
  return new Promise((resolve) => {
    process.stdout.write('h is the connection, nbd is the package; await works; .exit exits.\n');
    const server = start({ prompt: 'nbd> ', ignoreUndefined: true });
    Object.assign(server.context, globals);
    server.on('exit', () => resolve());
    context.signal.addEventListener('abort', () => server.close());
  });
}
