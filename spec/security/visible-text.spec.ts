// What a stranger can put before a person's eyes: every character that moves a cursor, begins a line, turns what
// follows round or cannot be seen, at every place where a peer's text or a URI's is shown.

import { describe, expect, it } from '@jest/globals';
import { inspect } from 'node:util';

import { messageOf, formatFailure } from '../../lib/cli/output/failure.js';
import { CliError } from '../../lib/cli/errors.js';
import { type ExportReport, reportJson, reportText } from '../../lib/cli/info/report.js';
import { escapeXml } from '../../lib/cli/map/render.js';
import { jsonString, Paint } from '../../lib/cli/output/text.js';
import { explainTls } from '../../lib/client/tls/errors.js';
import { NbdConnection, NbdConnectionError, type NbdConnectionOptions, NbdError } from '../../lib/index.js';
import { printable, printableText } from '../../lib/protocol/names.js';
import {
  chunk,
  close,
  join,
  oldstyle,
  on,
  optionReply,
  type PeerScript,
  ScriptedPeer,
  u16,
  u32,
} from '../../lib/testing/index.js';
import { quoted, visible, visibleJson } from '../../lib/util/visible.js';
import { nbd } from '../cli/support.js';
import { caught, rejection } from '../support/caught.js';

const range = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, i) => from + i);
const CODES = [
  ...[0x07, 0x08, 0x0a, 0x0d, 0x1b, 0x7f, 0x85, 0x9b, 0x9d, 0x061c, 0x200b, 0x200e, 0x200f, 0x2028, 0x2029],
  ...[...range(0x202a, 0x202e), ...range(0x2066, 0x2069), 0xfeff, 0xfff9],
];
const CHARS = CODES.map((code) => String.fromCharCode(code));
const ALL = CHARS.map((char) => `<${char}>`).join('');
/** As long as fits into the path of a socket. */
const DENSE = CHARS.filter((char) => char !== '\u2069').join('');
const LONE = 'a\ud800b\udc00';

/** What must be nowhere; `lines`: line feeds are those of a stack, or of the layout. */
function expectVisible(text: string, lines = false): void {
  expect(text).not.toBe('');
  const hidden = Array.from(text).filter((char) => {
    const code = char.codePointAt(0) ?? 0;
    return (CHARS.includes(char) || code < 0x20 || (code >= 0xd800 && code <= 0xdfff)) && !(lines && char === '\n');
  });
  expect({ text, hidden }).toEqual({ text, hidden: [] });
}

/** An error at all the places where it is read. */
function expectErrorVisible(error: unknown): void {
  expect(error).toBeInstanceOf(NbdError);
  const { message, stack = '' } = error as NbdError;
  expectVisible(message);
  expectVisible(stack, true);
  expectVisible(inspect(error, { depth: 9 }), true);
  expectVisible(formatFailure(error, 'nbd info', true), true);
  expectVisible(messageOf(error));
}

describe('the functions', () => {
  it.each(CHARS)('%j is escaped by each of them', (char) => {
    const text = `a${char}b`;
    const bytes = [...Buffer.from(char)].map((byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('');
    for (const result of [visible(text), printable(Buffer.from(text)), printableText(text)]) {
      expect(result).toBe(`a${bytes}b`);
    }
    for (const result of [quoted(text), jsonString(text), visibleJson(JSON.stringify(text))]) {
      expectVisible(result);
      expect(JSON.parse(result)).toBe(text);
    }
    expectVisible(escapeXml(text));
  });

  it('lone surrogates are, too, and pairs are not', () => {
    expectVisible(visible(LONE));
    expect(JSON.parse(jsonString(LONE))).toBe(LONE);
    expectVisible(jsonString(LONE));
    expect(visible('Größe 日本 😀 "x" \\n')).toBe('Größe 日本 😀 "x" \\n');
    expect(quoted('Größe 😀')).toBe('"Größe 😀"');
    expect(visible(visible(ALL))).toBe(visible(ALL));
  });
});

describe('the library', () => {
  const [UNKNOWN, OPT_GO, OPT_LIST] = [0x8000_0006, 7, 3];
  const NAME = CHARS.map((char) => `<${char}>`).join('');

  it.each<[string, PeerScript, NbdConnectionOptions?]>([
    ['a refusal', { on: [on(OPT_GO, optionReply(OPT_GO, UNKNOWN, ALL))] }],
    ['a refusal that repeats the name', { on: [on(OPT_GO, optionReply(OPT_GO, UNKNOWN, NAME))] }, { exportName: NAME }],
    ['the end of a connection', { on: [on(OPT_GO, close())] }, { exportName: NAME }],
    ['an oldstyle server', { greet: oldstyle() }, { exportName: NAME }],
    [
      'the error of a command',
      { reply: ({ cookie }) => chunk(1, 0x8001, cookie, join(u32(5), u16(Buffer.byteLength(ALL)), ALL)) },
    ],
  ])('shows no such character in %s', async (_, script, options = {}) => {
    await using peer = await ScriptedPeer.listen(script);
    const connection = new NbdConnection({ debug: true, ...options });
    const heard: string[] = [];
    connection.setDebugCallback((context, message) => heard.push(context, message));
    connection.on('debug', (context, message) => heard.push(context, message));
    const error = await rejection(
      connection.connectUnix(peer.socketPath as string).then(() => connection.pread(512, 0)),
    );
    expectErrorVisible(error);
    expect(heard.length).toBeGreaterThan(2);
    for (const text of heard) expectVisible(text);
    expectVisible(inspect(connection), true);
    expect(inspect(connection, { colors: true })).toContain('\u001b[32m');
    connection.close();
  });

  it.each<[string, () => Promise<unknown>]>([
    ['a path', () => new NbdConnection().connectUnix(`/none/${DENSE}`)],
    ['a host', () => new NbdConnection().connectTcp(`${ALL}.invalid`, 10809)],
    ['a URI', () => new NbdConnection().connectUri(`nbd://h/${ALL}`)],
    ['the path in a URI', () => new NbdConnection().connectUri(`nbd+unix:///?socket=/no/${encodeURIComponent(DENSE)}`)],
    ['a program', () => new NbdConnection().connectCommand([`/nonexistent/${ALL}`])],
    ['a folder', () => new NbdConnection({ tls: 2, tlsCertificates: `/no/${ALL}` }).connectUnix('/no')],
    [
      'a file of keys',
      () => new NbdConnection({ tls: 2, tlsPskFile: `/no/${ALL}`, tlsUsername: 'a' }).connectUnix('/'),
    ],
  ])('shows no such character of %s', async (_, attempt) => {
    expectErrorVisible(await rejection(attempt()));
  });

  it('shows no such character of arguments, or in errors that it creates', () => {
    const connection = new NbdConnection();
    expectErrorVisible(
      caught(() => {
        connection.setTls(JSON.parse(JSON.stringify(ALL)) as never);
      }),
    );
    expectErrorVisible(caught(() => new NbdConnection({ [ALL.slice(0, 30)]: 1 })));
    const cause = new Error(`Node's own ${ALL}`, { cause: new NbdError(ALL, { code: 'EIO' }) });
    expectErrorVisible(new NbdConnectionError(ALL, { code: 'EIO', exportName: ALL, cause }));
    const certificate = { subjectaltname: `DNS:${ALL}` };
    const name = Object.assign(new Error(ALL), { code: 'ERR_TLS_CERT_ALTNAME_INVALID', cert: certificate });
    expectErrorVisible(explainTls(name, 'handshake', { pskIdentity: null, name: 'h', hasCertificate: false }));
  });

  it('does not change data: the fields and the lists are as they were given', async () => {
    const entry = join(u32(Buffer.byteLength(NAME)), NAME, ALL);
    await using peer = await ScriptedPeer.listen({
      on: [on(OPT_LIST, [join(optionReply(OPT_LIST, 2, entry), optionReply(OPT_LIST, 1))])],
    });
    const connection = new NbdConnection({ optMode: true });
    await connection.connectUnix(peer.socketPath as string);
    expect(await connection.optList()).toEqual([{ name: NAME, description: ALL }]);
    expect(new NbdConnectionError('x', { code: 'EIO', exportName: ALL }).exportName).toBe(ALL);
    await connection.optAbort();
  });
});

describe('the command line', () => {
  const report: ExportReport = {
    name: ALL,
    description: `harmless\n\texport-size: 1 (forged)${ALL}`,
    size: 512n,
    content: ALL,
    uri: `nbd://h/${ALL}`,
    contexts: [`x:${ALL}`, 'y:\n\tis_read_only: false'],
    flags: [],
    blockSizes: [],
  };

  it('has one line for each fact, and no other', () => {
    const text = reportText(report, new Paint(false));
    expect(text.split('\n')).toHaveLength(9);
    for (const line of text.trimEnd().split('\n')) expectVisible(line.trim());
    const json = reportJson(report);
    expectVisible(json.replaceAll('\t', ''), true);
    expect(JSON.parse(json)).toMatchObject({
      'export-name': ALL,
      description: report.description,
      contexts: report.contexts,
    });
  });

  it('prints failures in one line, whatever their source', () => {
    expectVisible(formatFailure(new Error(ALL), 'nbd', true), true);
    expectVisible(formatFailure(new CliError(ALL, { hint: ALL }), 'nbd', true), true);
    expect(formatFailure(new CliError(ALL), 'nbd', false).split('\n')).toHaveLength(2);
  });

  it('shows no such character of what a server lists, in text and in JSON', async () => {
    const entry = join(u32(Buffer.byteLength(ALL)), ALL, ALL);
    await using peer = await ScriptedPeer.listen({
      on: [
        on(3, [join(optionReply(3, 2, entry), optionReply(3, 1))]),
        on(9, [join(optionReply(9, 4, join(u32(1), `x:${ALL}`)), optionReply(9, 1))]),
      ],
    });
    for (const words of [['list'], ['list', '--json'], ['info', '--verbose'], ['info', '--size', '--wrong'], [ALL]]) {
      const { stdout, stderr } = await nbd([
        ...words,
        ...(words.length > 1 || words[0] === 'list' ? [peer.uri(ALL)] : []),
      ]);
      expectVisible((stdout + stderr).replaceAll('\t', ''), true);
    }
  });
});
