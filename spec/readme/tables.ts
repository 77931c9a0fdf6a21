// The README's tables and names against the code; option-tables.ts has more of them. Each check takes the text and gives what is wrong, one line each,
// so that the specs can try it on a text that is wrong.

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { inspect } from 'node:util';
import ts from 'typescript';

import { CLI_COMMANDS } from '../../lib/cli/registry.js';
import * as api from '../../lib/index.js';
import { makeSettings } from '../../lib/client/options/options.js';
import { makePoolSettings } from '../../lib/pool/options.js';
import { COMMANDS, DISCONNECT, FLAG_NEEDS } from '../../lib/protocol/commands.js';
import * as serverApi from '../../lib/server/index.js';
import { ROOT } from '../support/root.js';
import { programOf } from '../support/type-check.js';

export type Row = Readonly<Record<string, string>>;

export const INDEX = 'lib/index.ts';
export const SERVER = 'lib/server/index.ts';
const CONNECTION = 'lib/client/node.ts';
const OPTIONS = 'lib/client/options/options.ts';
const HANDLE = 'lib/client/api/settings.ts';
const TRACING = 'lib/client/tracing.ts';
const POOL_OPTIONS = 'lib/pool/options.ts';
const POOL_EVENTS = 'lib/pool/events.ts';

const program = programOf([INDEX, SERVER, CONNECTION, OPTIONS, HANDLE, TRACING, POOL_OPTIONS, POOL_EVENTS]);
export const checker = program.getTypeChecker();

/** The rows of all tables whose first columns have these heads, or null. */
export function table(markdown: string, ...heads: readonly string[]): Row[] | null {
  const cellsOf = (line: string): string[] =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim());
  const rows: Row[] = [];
  let columns: string[] | null = null;
  for (const line of markdown.split('\n')) {
    if (!line.startsWith('|')) columns = null;
    else if (columns === null) columns = cellsOf(line);
    else if (heads.every((head, i) => columns?.[i] === head) && !line.startsWith('| --')) {
      rows.push(Object.fromEntries(cellsOf(line).map((cell, i) => [columns?.[i] ?? '', cell])));
    }
  }
  return rows.length === 0 ? null : rows;
}

export const MISSING = ['there is no such table'];

/** The code spans of a text. */
export const codes = (text: string): string[] => [...text.matchAll(/`([^`]+)`/g)].map(([, code]) => code as string);

export const code = (text: string | undefined): string => codes(text ?? '')[0] ?? '';

/** What is only in one of two lists. */
export function differences(what: string, documented: readonly string[], real: readonly string[]): string[] {
  return [
    ...real.filter((name) => !documented.includes(name)).map((name) => `${what} ${name} is not there`),
    ...documented.filter((name) => !real.includes(name)).map((name) => `${what} ${name} does not exist`),
    ...documented.filter((name, i) => documented.indexOf(name) !== i).map((name) => `${what} ${name} is there twice`),
  ];
}

export const differ = (what: string, documented: string, real: string): string[] =>
  documented === real ? [] : [`${what}: says ${documented}, is ${real}`];

/** `nbd_block_status_64` of `blockStatus64`. */
const libnbdName = (method: string): string =>
  `nbd_${method.replace(/[A-Z]|\d+/g, (part) => `_${part.toLowerCase()}`)}`;

const capitalised = (prefix: string, name: string): string =>
  `${prefix}${name.slice(0, 1).toUpperCase()}${name.slice(1)}`;

export const rawName = (method: string): string => capitalised('aio', method);

/** The declared type of an exported class or interface. */
export function typeOf(path: string, name: string): ts.Type {
  const symbol = exportsOf(path).find((each) => each.name === name);
  if (symbol === undefined) throw new Error(`${path} does not export ${name}`);
  return checker.getDeclaredTypeOfSymbol(symbol);
}

/** What a module exports, types too. */
export function exportsOf(path: string): ts.Symbol[] {
  const module = checker.getSymbolAtLocation(program.getSourceFile(join(ROOT, path)) as ts.Node);
  return checker.getExportsOfModule(module as ts.Symbol).map((each) => {
    return (each.flags & ts.SymbolFlags.Alias) === 0 ? each : checker.getAliasedSymbol(each);
  });
}

/** `cache(count, offset, flags?, signal?)`, from the first declaration. */
export function signature(method: string): string | null {
  const property = typeOf(CONNECTION, 'NbdConnection').getProperty(method);
  const declaration = property?.declarations?.[0];
  if (declaration === undefined || !ts.isMethodDeclaration(declaration)) return null;
  const parameters = declaration.parameters.map((each) => {
    const isOptional = each.questionToken !== undefined || each.initializer !== undefined;
    return `${each.name.getText()}${isOptional ? '?' : ''}`;
  });
  return `${method}(${parameters.join(', ')})`;
}

/** Promise and raw form, libnbd's name, flags, and what the server must have, of every command. */
export function checkCommands(markdown: string): string[] {
  const rows = table(markdown, 'Promise', 'Raw', 'libnbd', 'Flags', 'The server must have');
  if (rows === null) return MISSING;
  const methodOf = (row: Row): string => code(row['Promise']).replace(/\(.*/, '');
  const specs = COMMANDS.filter((spec) => spec !== DISCONNECT);
  const problems = differences(
    'command',
    rows.map(methodOf),
    specs.map(({ method }) => method),
  );
  for (const spec of specs) {
    const row = rows.find((each) => methodOf(each) === spec.method);
    if (row === undefined) continue;
    const { method } = spec;
    problems.push(...differ(method, code(row['Promise']), signature(method) ?? 'missing'));
    problems.push(...differ(`${method} raw`, code(row['Raw']), signature(rawName(method)) ?? 'missing'));
    problems.push(...differ(`${method} in libnbd`, code(row['libnbd']), libnbdName(method)));
    const allowed = FLAGS.filter(([, bit]) => (spec.allowedFlags & bit) !== 0).map(([name]) =>
      name.slice('CMD_FLAG_'.length),
    );
    problems.push(...differences(`${method}: flag`, codes(row['Flags'] ?? ''), allowed));
    const needs = [...spec.lacking.matchAll(/see (can\w+)/g)].map(([, name]) => `${name}()`);
    if (spec.writes) needs.push('isReadOnly()');
    if (method.startsWith('blockStatus')) needs.push('canMetaContext(name)');
    if (method === 'blockStatusFilter') needs.push('canBlockStatusPayload()');
    problems.push(...differences(`${method}: need`, codes(row['The server must have'] ?? ''), needs));
  }
  return problems;
}

/** Every flag that a caller sets; PAYLOAD_LEN is set by strict mode itself. */
const FLAGS = Object.entries(api as Readonly<Record<string, unknown>>).filter(
  (entry): entry is [string, number] => /^CMD_FLAG_(?!MASK|PAYLOAD_LEN)/.test(entry[0]) && typeof entry[1] === 'number',
);

/** Every command flag, and the function that reports whether the server supports it. */
export function checkFlags(markdown: string): string[] {
  const rows = table(markdown, 'Flag', 'What it asks for', 'The server must have');
  if (rows === null) return MISSING;
  const problems = differences(
    'flag',
    rows.map((row) => code(row['Flag'])),
    FLAGS.map(([name]) => name),
  );
  for (const [name, bit] of FLAGS) {
    const row = rows.find((each) => code(each['Flag']) === name);
    const lacking = FLAG_NEEDS.find(({ flag }) => flag === bit)?.lacking ?? '';
    const needs = [...lacking.matchAll(/see (can\w+)/g)].map(([, can]) => `${can}()`);
    if (row !== undefined)
      problems.push(...differences(`${name}: need`, codes(row['The server must have'] ?? ''), needs));
  }
  return problems;
}

/** Every option and its default. */
export function checkOptions(markdown: string): string[] {
  const rows = table(markdown, 'Option', 'Default');
  if (rows === null) return MISSING;
  const names = typeOf(OPTIONS, 'NbdConnectionOptions')
    .getProperties()
    .map(({ name }) => name);
  const problems = differences(
    'option',
    rows.flatMap((row) => codes(row['Option'] ?? '')),
    names,
  );
  const settings: Readonly<Record<string, unknown>> = { ...makeSettings(undefined) };
  for (const name of names) {
    const cell = rows.find((row) => codes(row['Option'] ?? '').includes(name))?.['Default'];
    if (cell === undefined) continue;
    const said = cell === 'none' ? cell : code(cell);
    problems.push(...differ(`default of ${name}`, said, name === 'handleName' ? 'nbd1' : shown(settings[name], said)));
  }
  return problems;
}

/** Every option of a pool, and its default. */
export function checkPoolOptions(markdown: string): string[] {
  const rows = table(markdown, 'Pool option', 'Default');
  if (rows === null) return MISSING;
  const own = (name: string, ...inherited: string[]): string[] =>
    typeOf(POOL_OPTIONS, name)
      .getProperties()
      .map((each) => each.name)
      .filter((each) => !inherited.includes(each));
  const connection = typeOf(OPTIONS, 'NbdConnectionOptions')
    .getProperties()
    .map(({ name }) => name);
  const names = [
    ...own('NbdPoolOptions', ...connection, 'signal'),
    ...own('ReconnectOptions').map((name) => `reconnect.${name}`),
    ...own('RetryOptions').map((name) => `retry.${name}`),
    'requestTimeout',
  ];
  const said = rows.map((row) => code(row['Pool option']));
  const settings = makePoolSettings({ retry: {} });
  const real: Readonly<Record<string, unknown>> = {
    ...settings,
    ...{ reconnect: {}, retry: false, rewrite: 'none', requestTimeout: settings.connection.requestTimeout },
    ...Object.fromEntries(Object.entries({ ...settings.reconnect }).map(([key, value]) => [`reconnect.${key}`, value])),
    ...Object.fromEntries(Object.entries({ ...settings.retry }).map(([key, value]) => [`retry.${key}`, value])),
  };
  const written = (value: unknown): string => (typeof value === 'string' ? value : inspect(value));
  return [
    ...differences('option', said, names),
    ...rows.flatMap((row) => {
      const name = code(row['Pool option']);
      const cell = row['Default'] ?? '';
      return differ(`default of ${name}`, code(cell) || cell, written(real[name]).replace("[ 'EIO' ]", "['EIO']"));
    }),
  ];
}

/** A value as the table writes it: by the constant's name where the table does. */
function shown(value: unknown, said: string): string {
  const constants: Readonly<Record<string, unknown>> = api;
  if (said === 'none' && (value === null || value === '')) return said;
  if (/^[A-Z_]{4,}$/.test(said) && constants[said] === value) return said;
  if (typeof value === 'string') return `'${value}'`;
  return Array.isArray(value) ? JSON.stringify(value) : String(value);
}

/** Every class of error. */
export function checkErrors(markdown: string): string[] {
  const rows = table(markdown, 'Class', 'When', 'Codes');
  if (rows === null) return MISSING;
  const real = Object.values(api).filter(
    (value): value is typeof api.NbdError =>
      typeof value === 'function' && Object.getPrototypeOf(value) === api.NbdError,
  );
  return differences(
    'class',
    rows.map((row) => code(row['Class'])),
    real.map(({ name }) => name),
  );
}

/** Every event with its listener's parameters. */
export function checkEvents(markdown: string): string[] {
  return [
    ...eventsOf(markdown, 'Event', HANDLE, 'NbdConnectionEvents'),
    ...eventsOf(markdown, 'Pool event', POOL_EVENTS, 'NbdPoolEvents'),
  ];
}

function eventsOf(markdown: string, head: string, path: string, type: string): string[] {
  const rows = table(markdown, head, 'Arguments', 'When');
  if (rows === null) return MISSING;
  const events = typeOf(path, type).getProperties();
  const problems = differences(
    'event',
    rows.map((row) => code(row[head])),
    events.map(({ name }) => name),
  );
  for (const event of events) {
    const listener = checker.getTypeOfSymbol(event).getCallSignatures()[0];
    const parameters = listener?.parameters.map((each) => {
      const declaration = each.valueDeclaration;
      const isOptional =
        declaration !== undefined && ts.isParameter(declaration) && declaration.questionToken !== undefined;
      return `${each.name}${isOptional ? '?' : ''}`;
    });
    const row = rows.find((each) => code(each[head]) === event.name);
    if (row !== undefined)
      problems.push(...differ(event.name, code(row['Arguments']), `(${(parameters ?? []).join(', ')})`));
  }
  return problems;
}

/** Every channel, and the fields of a command's message. */
export function checkChannels(markdown: string): string[] {
  const rows = table(markdown, 'Channel', 'Message', 'When');
  if (rows === null) return MISSING;
  const source = readFileSync(join(ROOT, TRACING), 'utf8');
  const channels = [...source.matchAll(/channel\('([^']+)'\)/g)].map(([, name]) => name as string);
  const problems = differences(
    'channel',
    rows.map((row) => code(row['Channel'])),
    channels,
  );
  const fields = typeOf(TRACING, 'CommandTrace')
    .getProperties()
    .map(({ name }) => name);
  const start = rows.find((row) => code(row['Channel']) === 'nbd:command:start')?.['Message'] ?? '';
  const said = code(start)
    .replace(/[{}\s]/g, '')
    .split(',');
  return [...problems, ...differences('field', [...said, 'error'], fields)];
}

/** Every command of the command line. */
export function checkCommandLine(markdown: string): string[] {
  const rows = table(markdown, '`nbd`', 'What it does');
  if (rows === null) return MISSING;
  return differences(
    'nbd',
    rows.map((row) => code(row['`nbd`'])),
    Object.keys(CLI_COMMANDS),
  );
}

/** Exported for the command line; users have no need of them. */
const UNNAMED: string[] = [];

/** Every public method, function and class is named, and every name that looks like one of these is one. */
export function checkNames(markdown: string): string[] {
  const prose = codes(markdown.replace(/```[\s\S]*?```/g, ''));
  const mentioned = prose.map((text) => text.replace(/\(.*/s, '').replace(/^NbdConnection\./, ''));
  const named = new Set(mentioned);
  for (const [, program] of markdown.matchAll(/```ts\n([\s\S]*?)```/g)) {
    for (const [word] of (program as string).matchAll(/\w+/g)) named.add(word);
  }
  const settings = makeSettings(undefined);
  for (const name of [...named]) {
    // One sentence states that each option has its setter and its getter, another that each opt* has a raw form.
    if (name in settings) for (const prefix of ['set', 'get']) named.add(capitalised(prefix, name));
    if (name.startsWith('opt')) named.add(rawName(name));
  }
  const exported = { ...api, ...serverApi };
  const constants = Object.keys(exported).filter((name) => name === name.toUpperCase());
  const others = Object.keys(exported).filter((name) => !constants.includes(name));
  const names = [...publicMethods(), ...others];
  const types = [...exportsOf(INDEX), ...exportsOf(SERVER)].map(({ name }) => name);
  const ofServer = Object.getOwnPropertyNames(serverApi.NbdServer.prototype);
  const known = new Set([...names, ...constants, ...types, ...ofServer, ...Object.keys(settings)]);
  const isLikely = (name: string): boolean => LIKE_A_METHOD.test(name) || LIKE_A_CONSTANT.test(name);
  return [
    ...names.filter((name) => !named.has(name) && !UNNAMED.includes(name)).map((name) => `${name} is not named`),
    ...UNNAMED.filter((name) => !names.includes(name) || named.has(name)).map((name) => `${name} is no exception`),
    ...mentioned.filter((name) => isLikely(name) && !known.has(name)).map((name) => `${name} does not exist`),
  ];
}

/** The methods of a connection that this package itself declares. */
function publicMethods(): string[] {
  const own = typeOf(CONNECTION, 'NbdConnection')
    .getProperties()
    .filter(({ name, declarations }) => {
      const path = declarations?.[0]?.getSourceFile().fileName ?? '';
      return path.startsWith(join(ROOT, 'lib/')) && /^[a-z]\w*$/.test(name);
    });
  const inherited = Object.getPrototypeOf(api.NbdConnection) as object;
  const statics = [api.NbdConnection, inherited].flatMap((each) => Object.getOwnPropertyNames(each));
  return [...own.map(({ name }) => name), ...statics.filter((name) => !['length', 'name', 'prototype'].includes(name))];
}

const LIKE_A_METHOD = /^(aio|opt|can|is|get|set|connect|stats)[A-Z]\w*$|^Nbd\w+$|^\w+Backend$/;
const LIKE_A_CONSTANT =
  /^(CMD_FLAG|STRICT|SIZE|STATE|CONTEXT|TLS|SHUTDOWN|READ|HANDSHAKE_FLAG|ALLOW_TRANSPORT)_[A-Z_]+$/;

interface Manifest {
  readonly scripts: Readonly<Record<string, string>>;
  readonly dependencies: Readonly<Record<string, string>>;
  readonly peerDependencies?: Readonly<Record<string, string>>;
  readonly engines: { readonly node: string };
  readonly bin?: Readonly<Record<string, string>>;
}

const packagesOf = ({ dependencies, peerDependencies }: Manifest): string[] =>
  Object.keys({ ...dependencies, ...peerDependencies });

/** Scripts, dependencies, the version of Node, and files that are linked to. */
export function checkPackage(markdown: string): string[] {
  const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as Manifest;
  const scripts = [...markdown.matchAll(/npm (?:run )?(start|test|check|[\w:]+(?=`))/g)].map(
    ([, name]) => name as string,
  );
  const rows = table(markdown, 'Package', 'Why');
  const documented = (rows ?? []).map((row) => /^\[([^\]]+)\]/.exec(row['Package'] ?? '')?.[1] ?? '');
  const version = manifest.engines.node.replace('>=', '');
  const links = [...markdown.matchAll(/\]\((?!https?:|#)([^)]+)\)/g)].map(([, path]) => path as string);
  return [
    ...scripts
      .filter((name) => name !== 'ci' && name !== 'install' && !(name in manifest.scripts))
      .map((name) => `npm script ${name} does not exist`),
    ...(rows === null ? MISSING : differences('package', documented, packagesOf(manifest))),
    ...(markdown.includes(`Node.js ${version} and later`) ? [] : [`Node.js ${version} is not named`]),
    ...Object.keys(manifest.bin ?? {})
      .filter((name) => !markdown.includes(`\`${name} `))
      .map((name) => `command ${name} is not named`),
    ...links.filter((path) => !existsSync(join(ROOT, path.replace(/#.*/, '')))).map((path) => `${path} does not exist`),
  ];
}
