// The tables of options, calls and fields, and the links, of the README and of lib/server/README.md. Each check takes the
// text and returns what is wrong, one line each, as those in tables.ts.

import { constants } from 'node:os';
import ts from 'typescript';

import * as api from '../../lib/index.js';
import { DEFAULTS } from '../../lib/server/options.js';
import {
  checker,
  code,
  codes,
  differ,
  differences,
  exportsOf,
  INDEX,
  MISSING,
  rawName,
  type Row,
  SERVER,
  signature,
  table,
  typeOf,
} from './tables.js';

const nameOf = (call: string): string => call.replace(/\(.*/s, '');
const propertiesOf = (path: string, type: string): string[] =>
  typeOf(path, type)
    .getProperties()
    .filter(({ declarations }) => !declarations?.some(isProtected))
    .map(({ name }) => name);

const isProtected = (node: ts.Declaration): boolean =>
  (ts.getCombinedModifierFlags(node) & ts.ModifierFlags.Protected) !== 0;

/** The calls that connect, and those of option mode, with both signatures. */
export function checkCalls(markdown: string): string[] {
  const rows = table(markdown, 'Promise call', 'Raw call');
  if (rows === null) return MISSING;
  const methods = Object.keys(Object.getOwnPropertyDescriptors(api.NbdConnection.prototype));
  const inherited = propertiesOf(INDEX, 'NbdConnection');
  const real = new Set([...methods, ...inherited].filter((name) => /^(connect|opt)[A-Z]/.test(name)));
  const problems = differences(
    'call',
    rows.map((row) => nameOf(code(row['Promise call']))),
    [...real],
  );
  for (const row of rows) {
    const promise = code(row['Promise call']);
    const name = nameOf(promise);
    problems.push(...differ(name, promise, signature(name) ?? 'missing'));
    problems.push(...differ(`${name} raw`, code(row['Raw call']), signature(rawName(name)) ?? 'missing'));
  }
  return problems;
}

/** The methods that return information: that their names and parameters are right. All names are in checkNames. */
export function checkFacts(markdown: string): string[] {
  const rows = table(markdown, 'Method', 'Returns');
  if (rows === null) return MISSING;
  const declared = codes(rows.map((row) => row['Method']).join(' '));
  const facts = propertiesOf(INDEX, 'NbdFacts').filter((name) => /^(can|is)[A-Z]|^get.*Negotiated$|^stats/.test(name));
  const missing = facts.filter((name) => !declared.some((call) => nameOf(call) === name));
  return [
    ...missing.map((name) => `${name} is not there`),
    ...declared.flatMap((call) => differ(nameOf(call), call, parametersOf(nameOf(call)) ?? 'missing')),
  ];
}

/** `getBlockSize(type)` for `getBlockSize(sizeType)`: only the number of parameters counts here. */
function parametersOf(name: string): string | null {
  const real = signature(name);
  if (real === null) return null;
  return real === 'getBlockSize(sizeType)' ? 'getBlockSize(type)' : real;
}

/** Every state, and the method that asks for it. */
export function checkStates(markdown: string): string[] {
  const rows = table(markdown, 'State', 'Method', 'Meaning');
  if (rows === null) return MISSING;
  const states = (typeOf(INDEX, 'ConnectionState') as ts.UnionType).types.map((each) => checker.typeToString(each));
  const problems = differences(
    'state',
    rows.map((row) => code(row['State'])),
    states.map((state) => `'${state.slice(1, -1)}'`),
  );
  for (const row of rows) {
    const state = code(row['State']).slice(1, -1);
    problems.push(...differ(state, code(row['Method']), `aioIs${state.slice(0, 1).toUpperCase()}${state.slice(1)}()`));
  }
  return problems;
}

/** The options of every exported function, and of the block hasher: name and type. */
function optionTypes(): Map<string, ts.Type> {
  const types = new Map<string, ts.Type>();
  for (const symbol of exportsOf(INDEX)) {
    const declaration = symbol.declarations?.find(ts.isFunctionDeclaration);
    const options = declaration?.parameters.find((each) => each.name.getText() === 'options');
    if (options !== undefined) types.set(symbol.name, checker.getTypeAtLocation(options));
  }
  types.set('BlockHasher', typeOf(INDEX, 'BlockHasherOptions'));
  return types;
}

/** Numbers of bytes as numbers, everything else as it is. */
function valueOf(text: string): string {
  const [, digits = '', , unit = ''] = /^([\d,]+)( ([KMG])iB)?$/.exec(text.trim()) ?? [];
  if (digits === '') return text.trim().replace(/^['`]+|['`]+$/g, '');
  return String(Number(digits.replaceAll(',', '')) * 1024 ** ' KMG'.indexOf(unit === '' ? ' ' : unit));
}

/** The default in a property's comment, where it is a value. */
function documentedDefault(property: ts.Symbol): string | null {
  const comment = ts.displayPartsToString(property.getDocumentationComment(checker));
  const [, quoted, plain] = /default:? (?:`([^`]+)`|([\d,]*\d(?: [KMG]iB)?|true|false)\b)/i.exec(comment) ?? [];
  const found = quoted ?? plain;
  return found === undefined ? null : valueOf(found);
}

/** `16, 8 (`prefetch`)`: what is meant for one function. */
function defaultFor(cell: string, name: string): string {
  const items = cell.split(', ');
  const own = items.find((item) => item.includes(`(\`${name}\`)`)) ?? items.find((item) => !item.includes('(')) ?? '';
  return valueOf(own.replace(/ \(.*/, ''));
}

/** Every option of every function that works on whole exports, with the functions that take it and the default. */
export function checkFunctionOptions(markdown: string): string[] {
  const rows = table(markdown, 'Option of a function', 'Functions', 'Value by default');
  if (rows === null) return MISSING;
  const types = optionTypes();
  const problems = differences(
    'option',
    rows.map((row) => code(row['Option of a function'])),
    [...new Set([...types.values()].flatMap((type) => type.getProperties().map(({ name }) => name)))],
  );
  for (const row of rows) {
    const option = code(row['Option of a function']);
    const takers = [...types].filter(([, type]) => type.getProperty(option) !== undefined).map(([name]) => name);
    problems.push(...differences(`${option}: function`, codes(row['Functions'] ?? ''), takers));
    for (const name of takers) {
      const real = documentedDefault(types.get(name)?.getProperty(option) as ts.Symbol);
      const said = defaultFor(row['Value by default'] ?? '', name);
      if (real !== null) problems.push(...differ(`default of ${option} of ${name}`, said, real));
    }
  }
  return problems;
}

/** The fields of sources and destinations of a copy, and which of them are needed. */
export function checkEnds(markdown: string): string[] {
  const rows = table(markdown, 'Field', 'Source', 'Destination');
  if (rows === null) return MISSING;
  const ends = { Source: typeOf(INDEX, 'CopySource'), Destination: typeOf(INDEX, 'CopyDestination') };
  const names = Object.values(ends).flatMap((type) => type.getProperties().map(({ name }) => name));
  const problems = differences(
    'field',
    rows.map((row) => code(row['Field'])),
    [...new Set(names)],
  );
  for (const row of rows) {
    const field = code(row['Field']);
    for (const [end, type] of Object.entries(ends)) {
      const property = type.getProperty(field);
      const isOptional = property !== undefined && (property.flags & ts.SymbolFlags.Optional) !== 0;
      const real = property === undefined ? '' : isOptional ? 'optional' : 'yes';
      problems.push(...differ(`${field} of a ${end}`, row[end] ?? '', real));
    }
  }
  return problems;
}

type ErrorClass = new (message: string, details: api.NbdErrorDetails) => api.NbdError;

const isTransient = (name: string, errorCode: string, cause?: unknown): boolean => {
  const constructor = (api as unknown as Readonly<Record<string, ErrorClass>>)[name] as ErrorClass;
  return new constructor('x', { code: errorCode, cause }).transient;
};

/** Which codes are transient in which class. */
export function checkTransient(markdown: string): string[] {
  const rows = table(markdown, 'Transient');
  if (rows === null) return MISSING;
  const columns = Object.keys(rows[0] ?? {}).filter((column) => column.startsWith('`'));
  const documented = rows.flatMap((row) => codes(row['Transient'] ?? ''));
  const all = Object.keys(constants.errno);
  const problems = all
    .filter((name) => columns.some((column) => isTransient(code(column), name)) && !documented.includes(name))
    .map((name) => `code ${name} is not there`);
  const broken = new api.NbdProtocolError('x', { code: 'EPROTO' });
  for (const row of rows) {
    for (const name of codes(row['Transient'] ?? '')) {
      for (const column of columns) {
        const real = !isTransient(code(column), name)
          ? 'no'
          : isTransient(code(column), name, broken)
            ? 'yes'
            : 'as its `cause`';
        problems.push(...differ(`${name} of ${code(column)}`, row[column] ?? '', real));
      }
    }
  }
  return problems;
}

/** The methods and properties of the embedded server. */
export function checkServerMembers(markdown: string): string[] {
  const rows = table(markdown, 'Member of the server');
  if (rows === null) return MISSING;
  const named = rows.flatMap((row) => codes(row['Member of the server'] ?? '').map(nameOf));
  return differences(
    'member',
    named,
    propertiesOf(SERVER, 'NbdServer').filter((name) => /^[a-z]\w*$/.test(name)),
  );
}

const GITHUB_ANCHOR = /[^\p{L}\p{N}\s_-]/gu;

/** Every link to a heading of the same page. */
export function checkAnchors(markdown: string): string[] {
  const text = markdown.replace(/```[\s\S]*?```/g, '');
  const anchors = [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
    (heading as string).toLowerCase().replace(GITHUB_ANCHOR, '').replaceAll(' ', '-'),
  );
  const links = [...text.matchAll(/\]\(#([^)]+)\)/g)].map(([, anchor]) => anchor as string);
  return links.filter((anchor) => !anchors.includes(anchor)).map((anchor) => `#${anchor} does not exist`);
}

/** The tables of options in lib/server/README.md, by the head of their first column. */
const SERVER_TABLES: Readonly<Record<string, string>> = {
  'Server option': 'NbdServerOptions',
  'Option of an export': 'NbdExportOptions',
  'TLS option of the server': 'NbdServerTlsOptions',
};

const FAULTS = ['ErrorFault', 'StallFault', 'DelayFault', 'HoldFault', 'CorruptFault', 'CutFault', 'BytesFault'];

/** Options, exports, TLS, faults, backends: everything that the embedded server takes is in its page. */
export function checkServerPage(markdown: string): string[] {
  const problems: string[] = [];
  for (const [head, type] of Object.entries(SERVER_TABLES)) {
    const rows: Row[] = table(markdown, head, 'Value by default') ?? [];
    problems.push(
      ...differences(
        `${type}:`,
        rows.flatMap((row) => codes(row[head] ?? '')),
        propertiesOf(SERVER, type),
      ),
    );
    for (const row of rows) {
      const option = code(row[head]);
      const real = (DEFAULTS as Readonly<Record<string, number>>)[option];
      if (real === undefined) continue;
      problems.push(...differ(`default of ${option}`, valueOf(row['Value by default'] ?? ''), String(real)));
    }
  }
  const faults = table(markdown, 'Fault key') ?? [];
  problems.push(
    ...differences(
      'fault key',
      faults.map((row) => code(row['Fault key'])),
      [...new Set(FAULTS.flatMap((type) => propertiesOf(SERVER, type)))],
    ),
  );
  for (const row of table(markdown, 'Backend', 'Contents', 'Options') ?? []) {
    const [, backend = ''] = /(\w+Backend)/.exec(row['Backend'] ?? '') ?? [];
    problems.push(
      ...differences(`${backend}:`, codes(row['Options'] ?? ''), propertiesOf(SERVER, `${backend}Options`)),
    );
  }
  const named = new Set(codes(markdown.replace(/```[\s\S]*?```/g, '')).map(nameOf));
  const needed = ['NbdBackend', 'FlagOverrides', 'HandshakeFeatures', 'FaultedRequest'];
  return [
    ...problems,
    ...needed.flatMap((type) =>
      propertiesOf(SERVER, type)
        .filter((name) => !named.has(name))
        .map((name) => `${name} of ${type} is not named`),
    ),
  ];
}
