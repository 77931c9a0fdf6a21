// `nbd shell`: nbdsh's role, a JavaScript prompt with the connection `h` and everything that the package exports.

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
    summary: 'a JavaScript prompt with a connection: nbdsh’s role',
    usage: ['[-u URI] [--base-allocation] [--opt-mode] [-n] [-c CODE ...] [NBD-URI | [ CMD ARGS ... ]]'],
    description: [
      'h is the connection, nbd holds everything that the package nbd-sdk exports, and await works at the prompt.',
      'With -c the code is run instead; several run one after the other and share their variables; -c - reads standard ' +
        'input. An error ends it with exit code 1.',
    ],
    options: [
      { names: ['uri', 'connect'], short: 'u', takes: 'value', value: 'URI', help: 'Connect to this server.' },
      { names: ['command'], short: 'c', takes: 'value', value: 'CODE', help: 'Run this code; - is standard input.' },
      { names: ['base-allocation'], help: 'Ask for the metadata context base:allocation.' },
      { names: ['opt-mode'], help: 'Stop in option mode: h.optGo() opens the export.' },
      { names: ['n'], short: 'n', help: 'Make no connection h.' },
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
  if (extra !== undefined || (operand !== undefined && uri !== undefined))
    throw new UsageError('one server is expected');
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
    throw new UsageError('you cannot use -n and connect to a server');
  }
  const codes = args.options.filter(({ name }) => name === 'command').map(({ value }) => value ?? '');
  if (codes.length > 0) await runCodes(codes, globals);
  else await prompt(globals, context);
}

const AsyncFunction = (async () => Promise.resolve()).constructor as new (
  ...parts: string[]
) => (...values: unknown[]) => Promise<unknown>;

/** All of it is the body of one async function: await works, and variables last from one -c to the next. */
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
    process.stdout.write('h is the connection, nbd is the package; await works; .exit ends.\n');
    const server = start({ prompt: 'nbd> ', ignoreUndefined: true });
    Object.assign(server.context, globals);
    server.on('exit', () => resolve());
    context.signal.addEventListener('abort', () => server.close());
  });
}
