// Parses NBD URIs (the protocol's doc/uri.md, and libnbd 1.24's additions) and checks what a URI is allowed to do.
// WHATWG's URL is not used: it removes `..` and tabs from paths, turns backslashes into slashes, reads `+` in a
// query as a space, accepts bad escapes, and ignores ports and case for schemes that it does not know.

import { Buffer } from '../util/buffer.js';
import * as client from './client-constants.js';
import { DEFAULT_PORT, MAX_STRING } from './constants.js';
import { MAX_U32 } from '../util/u64.js';
import {
  checkComponent,
  decodeComponent,
  isIpv6,
  parseAuthority,
  parseNumber,
  PATH,
  QUERY,
  refuser,
} from './uri-parts.js';
import type { Authority, NbdUriParts, Refuse, SshUriParts, UriScheme, UriTransport } from './uri-parts.js';

export type { NbdUriParts, UriScheme } from './uri-parts.js';

/** A parsed URI. */
export type NbdUri = NbdUriParts & {
  /** In lower case. */
  readonly scheme: UriScheme;
  /** Names of the parameters that had no effect: unknown ones, and those that do not apply to this transport. */
  readonly unknownParameters: readonly string[];
  /** Present if the export name contains a session_id, which is a credential. */
  readonly hasSession?: true;
};

const DEFAULT_SSH_PORT = 22;
/** VMADDR_CID_HOST. */
const DEFAULT_CID = 2;
const MAX_U16 = 0xffff;

const SCHEMES: ReadonlyMap<string, { scheme: UriScheme; transport: UriTransport; tls: boolean }> = new Map(
  (
    [
      ['nbd', 'tcp'],
      ['nbds', 'tcp'],
      ['nbd+unix', 'unix'],
      ['nbds+unix', 'unix'],
      ['nbd+vsock', 'vsock'],
      ['nbds+vsock', 'vsock'],
      ['nbd+ssh', 'ssh'],
      ['nbds+ssh', 'ssh'],
    ] as const
  ).map(([scheme, transport]) => [scheme, { scheme, transport, tls: scheme.startsWith('nbds') }]),
);

/** Whether `text` starts with one of the eight schemes and `://`. Parsing it may still fail. */
export const isUri = (text: string): boolean => /^nbds?(\+(unix|vsock|ssh))?:\/\//i.test(text);

/**
 * Parses an NBD URI. Stricter than libnbd, which uses libxml2, wherever leniency would connect to something that was
 * not meant: a fragment, a NUL, a port out of range, a CID with trailing text.
 *
 * @throws NbdStrictError EINVAL, or ENAMETOOLONG for an export name of more than 4096 bytes; the message names the
 * part and the reason but does not quote the URI.
 */
export function parseUri(text: string, syscall = 'connectUri'): NbdUri {
  const refuse = refuser(syscall);
  const given: unknown = text; // a caller in JavaScript may have passed anything
  if (typeof given !== 'string') throw refuse('the URI is not a string');
  const { scheme, transport, tls } = parseScheme(text, refuse);

  const rest = text.slice(scheme.length + '://'.length);
  if (rest.includes('#')) throw refuse('the URI has a fragment, which NBD URIs do not have (write # as %23)');
  const queryAt = rest.includes('?') ? rest.indexOf('?') : rest.length;
  const pathAt = rest.slice(0, queryAt).includes('/') ? rest.indexOf('/') : queryAt;
  const path = rest.slice(pathAt, queryAt);
  const query = rest.slice(queryAt + 1);

  checkComponent(path, PATH, refuse);
  checkComponent(query, QUERY, refuse);
  const hasWidePort = transport === 'vsock' || transport === 'unix'; // a Unix socket's authority means nothing
  const authority = parseAuthority(rest.slice(0, pathAt), hasWidePort ? MAX_U32 : MAX_U16, refuse);
  const parameters = parseQuery(query, refuse);

  const { exportName, ...session } = withSession(decodeComponent(path.slice(1), PATH.name, refuse), parameters);
  if (Buffer.byteLength(exportName) > MAX_STRING) {
    throw refuse(`the URI's export name is longer than ${MAX_STRING} bytes`, 'ENAMETOOLONG');
  }
  const common = { scheme, tls, exportName, ...session, ...parseTlsParameters(parameters, authority, refuse) };

  if (transport === 'unix') {
    const socketPath = parseSocket(parameters, refuse);
    if (socketPath === undefined) {
      throw refuse(`the URI has no socket parameter (did you mean ${scheme}:///?socket=PATH?)`);
    }
    return { ...common, transport, socketPath, unknownParameters: parameters.unused() };
  }
  if (transport === 'ssh') {
    const ssh = parseSsh(authority, parameters, refuse);
    return { ...common, ...ssh, unknownParameters: parameters.unused() };
  }
  if (parameters.has('socket')) {
    const meant = tls ? 'nbds+unix' : 'nbd+unix';
    throw refuse(`a socket parameter cannot be used with ${scheme}:// (did you mean ${meant}:///?socket=PATH?)`);
  }
  const maxPort = transport === 'vsock' ? MAX_U32 : MAX_U16;
  const port = parseNbdPort(parameters, maxPort, refuse) ?? authority.port ?? DEFAULT_PORT;
  if (transport === 'vsock') {
    const cid = authority.host === '' ? DEFAULT_CID : parseNumber(authority.host, 0, MAX_U32, 'vsock CID', refuse);
    return { ...common, transport, cid, port, unknownParameters: parameters.unused() };
  }
  const host = authority.host === '' ? 'localhost' : authority.host;
  return { ...common, transport, host, port, unknownParameters: parameters.unused() };
}

function parseScheme(text: string, refuse: Refuse): { scheme: UriScheme; transport: UriTransport; tls: boolean } {
  const match = /^([a-z][a-z0-9+.-]*):(\/\/)?/i.exec(text);
  const known = SCHEMES.get(match?.[1]?.toLowerCase() ?? '');
  if (known && match?.[2] !== undefined) return known;
  if (known) throw refuse(`the URI does not start with ${known.scheme}://`);
  if (text.startsWith('/')) {
    throw refuse('the URI has no scheme (to open a local socket use nbd+unix:///?socket=PATH)');
  }
  if (/^localhost(:|$)/i.test(text)) {
    throw refuse('the URI has no scheme (to open a local port use nbd://localhost or nbd://localhost:PORT)');
  }
  throw refuse(`the URI's scheme is not one of ${[...SCHEMES.keys()].join(', ')}`);
}

/** The parameters by name; keeps track of those that were not used. */
class Parameters {
  readonly #values = new Map<string, string>();
  readonly #raw = new Map<string, string>();
  readonly #unused = new Map<string, string>();

  /** Names are case-insensitive, and the last one wins, as in libnbd. */
  set(name: string, value: string, raw: string): void {
    const key = name.toLowerCase();
    this.#values.set(key, value);
    this.#raw.set(key, raw);
    if (!this.#unused.has(key)) this.#unused.set(key, name);
  }

  has(key: string): boolean {
    return this.#values.has(key);
  }

  take(key: string): string | undefined {
    this.#unused.delete(key);
    return this.#values.get(key);
  }

  /** The value as written, with its escapes. */
  takeRaw(key: string): string | undefined {
    this.#unused.delete(key);
    return this.#raw.get(key);
  }

  unused(): string[] {
    return [...this.#unused.values()];
  }
}

/** Only the value of `socket` may contain a NUL, as its first character: a name in Linux's abstract namespace. */
function parseQuery(query: string, refuse: Refuse): Parameters {
  const parameters = new Parameters();
  // libnbd's rule: `;` is a separator only after the last `&`.
  const lastAmpersand = query.lastIndexOf('&');
  const sections = [
    ...(lastAmpersand < 0 ? [] : query.slice(0, lastAmpersand).split('&')),
    ...query.slice(lastAmpersand + 1).split(';'),
  ];
  for (const section of sections) {
    const equals = section.indexOf('=');
    const rawName = equals < 0 ? section : section.slice(0, equals);
    if (rawName === '') continue; // nothing between two separators, or a value without a name
    const name = decodeComponent(rawName, 'query', refuse);
    const rawValue = equals < 0 ? '' : section.slice(equals + 1);
    const isAbstract = name.toLowerCase() === 'socket' && rawValue.startsWith('%00');
    const part = /^[a-z-]{1,32}$/i.test(name) ? `${name} parameter` : 'query';
    const value = decodeComponent(isAbstract ? rawValue.slice('%00'.length) : rawValue, part, refuse);
    parameters.set(name, isAbstract ? `\0${value}` : value, rawValue);
  }
  return parameters;
}

/**
 * XenServer's URIs are `nbd://HOST/UUID?session_id=REF`, and its server expects `/UUID?session_id=REF` as the export
 * name. libnbd drops the query, and the server then refuses the export.
 */
function withSession(path: string, parameters: Parameters): { exportName: string; hasSession?: true } {
  const session = path === '' ? undefined : parameters.takeRaw('session_id');
  if (session === undefined) return { exportName: path };
  return { exportName: `${path.startsWith('/') ? '' : '/'}${path}?session_id=${session}`, hasSession: true };
}

type TlsParameters = Pick<
  NbdUriParts,
  'tlsUsername' | 'tlsCertificates' | 'tlsPskFile' | 'tlsHostname' | 'tlsPriority' | 'tlsVerifyPeer' | 'tlsType'
>;

function parseTlsParameters(parameters: Parameters, authority: Authority, refuse: Refuse): TlsParameters {
  // An empty user or host name means none; an empty file name or priority is a mistake.
  const username = parameters.take('tls-username') ?? '';
  const tlsUsername = username === '' ? authority.user : username;
  const hostname = parameters.take('tls-hostname') ?? '';
  const tlsHostname = hostname === '' ? undefined : hostname;
  const tlsCertificates = takeFilled(parameters, 'tls-certificates', refuse);
  const tlsPskFile = takeFilled(parameters, 'tls-psk-file', refuse);
  const tlsPriority = takeFilled(parameters, 'tls-priority', refuse);
  const tlsVerifyPeer = parseBoolean(parameters, 'tls-verify-peer', refuse);
  const tlsType = parameters.take('tls-type')?.toLowerCase();
  if (tlsType !== undefined && tlsType !== 'anon' && tlsType !== 'x509' && tlsType !== 'psk') {
    throw refuse("the URI's tls-type is not one of anon, x509, psk");
  }
  return {
    ...(tlsUsername === undefined ? {} : { tlsUsername }),
    ...(tlsHostname === undefined ? {} : { tlsHostname }),
    ...(tlsCertificates === undefined ? {} : { tlsCertificates }),
    ...(tlsPskFile === undefined ? {} : { tlsPskFile }),
    ...(tlsPriority === undefined ? {} : { tlsPriority }),
    ...(tlsVerifyPeer === undefined ? {} : { tlsVerifyPeer }),
    ...(tlsType === undefined ? {} : { tlsType }),
  };
}

function takeFilled(parameters: Parameters, name: string, refuse: Refuse): string | undefined {
  const value = parameters.take(name);
  if (value === '') throw refuse(`the URI's ${name} is empty`);
  return value;
}

/** The values that libnbd accepts; uri.md has only 0 and 1. */
function parseBoolean(parameters: Parameters, name: string, refuse: Refuse): boolean | undefined {
  const value = parameters.take(name);
  if (value === undefined) return undefined;
  if (/^(1|true|t|yes|y|on)$/i.test(value)) return true;
  if (/^(0|false|f|no|n|off)$/i.test(value)) return false;
  throw refuse(`the URI's ${name} is neither true nor false`);
}

function parseNbdPort(parameters: Parameters, maxPort: number, refuse: Refuse): number | undefined {
  const value = parameters.take('nbd-port');
  return value === undefined ? undefined : parseNumber(value, 1, maxPort, 'nbd-port', refuse);
}

function parseSocket(parameters: Parameters, refuse: Refuse): string | undefined {
  const socketPath = takeFilled(parameters, 'socket', refuse);
  if (socketPath === '\0') throw refuse("the URI's socket has an empty abstract name");
  return socketPath;
}

type SshOnly = Omit<SshUriParts, keyof TlsParameters | 'tls' | 'exportName'>;

/**
 * ssh reads a host that starts with `-` as an option (CVE-2025-14946), expands host and user in commands of its
 * configuration, and passes the socket's path to a shell on the server. Characters that could be special there are
 * refused rather than quoted, because that shell is unknown.
 */
function parseSsh(authority: Authority, parameters: Parameters, refuse: Refuse): SshOnly {
  const { host, user } = authority;
  if (host === '') throw refuse('an ssh URI requires a host');
  const [address = ''] = host.split('%'); // its zone has been checked
  if (!isIpv6(address) && !/^\w[\w.-]*$/.test(host)) {
    throw refuse(
      "the URI's host is not safe to pass to ssh: it may contain letters, digits, '.', '_' and '-', " +
        "and must not start with '-', which ssh would take for an option",
    );
  }
  if (user !== undefined && !/^[\w.][\w.@+-]*$/.test(user)) {
    throw refuse(
      "the URI's user name is not safe to pass to ssh: it may contain letters, digits, '.', '_', '@', '+' and '-', " +
        "and must not start with '-'",
    );
  }
  const socketPath = parseSocket(parameters, refuse);
  if (socketPath !== undefined && !/^[\w./@:,+=][\w./@:,+=-]*$/.test(socketPath)) {
    throw refuse(
      "the URI's socket is not safe to pass to ssh, whose server passes it to a shell: it may contain letters, " +
        "digits and any of ./_@:,+=- and must not start with '-'",
    );
  }
  return {
    transport: 'ssh',
    host,
    port: authority.port ?? DEFAULT_SSH_PORT,
    ...(user === undefined ? {} : { user }),
    ...(socketPath === undefined ? {} : { socketPath }),
    nbdPort: parseNbdPort(parameters, MAX_U16, refuse) ?? DEFAULT_PORT,
    compress: parseBoolean(parameters, 'compress', refuse) ?? false,
  };
}

/** What a connection allows a URI to do: setUriAllowTransports, -Tls, -LocalFile and -TlsPriority. */
export interface UriPermissions {
  /** ALLOW_TRANSPORT_* bits. */
  readonly transports: number;
  /** TLS_DISABLE: no nbds; TLS_ALLOW: either; TLS_REQUIRE: nbds only. */
  readonly tls: number;
  /** Whether the URI may name local files. */
  readonly localFile: boolean;
  /** Whether the URI may set the TLS priority, which can weaken TLS and read local files. Default false. */
  readonly tlsPriority?: boolean;
}

const ALLOWED_BY: Readonly<Record<UriTransport, number>> = {
  tcp: client.ALLOW_TRANSPORT_TCP,
  unix: client.ALLOW_TRANSPORT_UNIX,
  vsock: client.ALLOW_TRANSPORT_VSOCK,
  ssh: client.ALLOW_TRANSPORT_SSH,
};

/**
 * Refuses a URI that does more than it is allowed to. Must be called before any part of the URI takes effect.
 *
 * @throws NbdStrictError EPERM
 */
export function checkUriAllowed(uri: NbdUri, allowed: UriPermissions, syscall = 'connectUri'): void {
  const forbid = (reason: string): never => {
    throw refuser(syscall)(reason, 'EPERM');
  };
  if ((ALLOWED_BY[uri.transport] & allowed.transports) === 0) {
    forbid(`the URI's transport ${uri.scheme} is not permitted (see setUriAllowTransports)`);
  }
  if (uri.tls ? allowed.tls === client.TLS_DISABLE : allowed.tls === client.TLS_REQUIRE) {
    forbid(`the URI's TLS setting ${uri.scheme} is not permitted (see setUriAllowTls)`);
  }
  if (!allowed.localFile) {
    const file = uri.tlsCertificates === undefined ? 'tls-psk-file' : 'tls-certificates';
    if (uri.tlsCertificates !== undefined || uri.tlsPskFile !== undefined) {
      forbid(`the URI may not name local files (${file}; see setUriAllowLocalFile)`);
    }
  }
  if (uri.tlsPriority !== undefined && allowed.tlsPriority !== true) {
    forbid('the URI may not set the TLS priority (tls-priority; see setUriAllowTlsPriority)');
  }
}
