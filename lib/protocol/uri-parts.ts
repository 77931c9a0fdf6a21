// The parts of an NBD URI, and the pieces of its grammar (RFC 3986) that need more than a split: components and hosts.
// Messages name the invalid part but never quote it: a URI may contain a password.

import { NbdStrictError } from '../errors.js';
import { hasBadEscape, percentDecode } from '../util/percent.js';

export type UriTransport = 'tcp' | 'unix' | 'vsock' | 'ssh';

export type UriScheme = 'nbd' | 'nbds' | 'nbd+unix' | 'nbds+unix' | 'nbd+vsock' | 'nbds+vsock' | 'nbd+ssh' | 'nbds+ssh';

interface CommonParts {
  /** True for the `nbds` schemes: TLS is required. If false, the caller decides. */
  readonly tls: boolean;
  /** Decoded, without the path's leading `/`; at most 4096 bytes of UTF-8. */
  readonly exportName: string;
  /** `tls-username`, or else the user of the authority. */
  readonly tlsUsername?: string;
  /** A local folder; requires permission to name local files. */
  readonly tlsCertificates?: string;
  /** A local file; requires permission to name local files. */
  readonly tlsPskFile?: string;
  /** The name to verify the server's certificate against, if it is not the host. */
  readonly tlsHostname?: string;
  /** A cipher list; requires permission, because it may weaken TLS. */
  readonly tlsPriority?: string;
  readonly tlsVerifyPeer?: boolean;
  readonly tlsType?: 'anon' | 'x509' | 'psk';
}

export interface TcpUriParts extends CommonParts {
  readonly transport: 'tcp';
  /** A name or an address; an IPv6 address without its brackets. */
  readonly host: string;
  readonly port: number;
}

export interface UnixUriParts extends CommonParts {
  readonly transport: 'unix';
  /** Starts with NUL for a socket in Linux's abstract namespace. */
  readonly socketPath: string;
}

export interface VsockUriParts extends CommonParts {
  readonly transport: 'vsock';
  readonly cid: number;
  /** 32 bits, unlike a TCP port. */
  readonly port: number;
}

export interface SshUriParts extends CommonParts {
  readonly transport: 'ssh';
  /** The ssh server; safe as an argument of ssh, never starts with `-`. */
  readonly host: string;
  /** The ssh server's port. */
  readonly port: number;
  /** The user to log in as; safe as an argument of ssh. */
  readonly user?: string;
  /** The NBD server's Unix socket on the ssh server, safe in a shell command; if absent, `nbdPort` is used. */
  readonly socketPath?: string;
  /** The NBD server's port on the ssh server's localhost. */
  readonly nbdPort: number;
  /** Whether ssh compresses. */
  readonly compress: boolean;
}

/** Everything that identifies a connection; `transport` is the discriminant. */
export type NbdUriParts = TcpUriParts | UnixUriParts | VsockUriParts | SshUriParts;

/** Returns the error for a reason; the default code is EINVAL. */
export type Refuse = (reason: string, code?: string) => NbdStrictError;

export const refuser =
  (syscall: string): Refuse =>
  (reason, code = 'EINVAL') =>
    new NbdStrictError(`${syscall}: ${reason}`, { code, syscall });

/** One component of the URI: its name in messages, and the characters that must be escaped in it. */
export interface Component {
  readonly name: string;
  readonly illegal: RegExp;
}

export const USER: Component = { name: 'user name', illegal: /[^\w\-.~!$&'()*+,;=%]/ };
export const HOST: Component = { name: 'host', illegal: /[^\w\-.~!$&'()*+,;=%]/ };
export const PATH: Component = { name: 'export name', illegal: /[^\w\-.~!$&'()*+,;=:@%/]/ };
export const QUERY: Component = { name: 'query', illegal: /[^\w\-.~!$&'()*+,;=:@%/?]/ };

/** Throws if a component contains characters that RFC 3986 requires to be escaped there. */
export function checkComponent(text: string, { name, illegal }: Component, refuse: Refuse): void {
  const position = text.search(illegal);
  if (position >= 0) {
    const code = (text.codePointAt(position) ?? 0).toString(16).toUpperCase().padStart(4, '0');
    throw refuse(`the URI's ${name} contains U+${code}, which must be percent-encoded`);
  }
  if (hasBadEscape(text)) {
    throw refuse(`the URI's ${name} contains a % without two hexadecimal digits (write % as %25)`);
  }
}

/** Decodes a checked component, or a part of one. NUL is refused, because no C string can contain it. */
export function decodeComponent(text: string, name: string, refuse: Refuse): string {
  const decoded = percentDecode(text);
  if (decoded === null) throw refuse(`the URI's ${name} is not UTF-8 once decoded`);
  if (decoded.includes('\0')) throw refuse(`the URI's ${name} contains a NUL character`);
  return decoded;
}

/** A decimal number from `minimum` to `maximum`. An empty string is refused: it is often a variable that is not set. */
export function parseNumber(text: string, minimum: number, maximum: number, name: string, refuse: Refuse): number {
  const value = /^[0-9]+$/.test(text) ? Number(text) : Number.NaN;
  if (value >= minimum && value <= maximum) return value;
  throw refuse(`the URI's ${name} is not a number from ${minimum} to ${maximum}`);
}

export interface Authority {
  readonly user: string | undefined;
  /** Decoded; empty if absent. */
  readonly host: string;
  readonly port: number | undefined;
}

/** `[user@][host][:port]`. */
export function parseAuthority(text: string, maxPort: number, refuse: Refuse): Authority {
  const at = text.lastIndexOf('@');
  const user = at < 0 ? '' : text.slice(0, at);
  if (user.includes('@')) throw refuse("the URI contains more than one '@' before its path (write @ as %40)");
  if (user.includes(':')) {
    // TLS-PSK sends the user name in plaintext, so a password in it would be disclosed.
    throw refuse("the URI contains a password, which NBD does not use (write ':' in a user name as %3A)");
  }
  checkComponent(user, USER, refuse);

  const hostAndPort = text.slice(at + 1);
  const match = /^(\[[^\]]*\]|[^:[\]]*)(?::([^:]*))?$/.exec(hostAndPort);
  if (!match) throw refuse("the URI's host is malformed (an IPv6 address must be written in brackets)");
  const [, host = '', port] = match;
  return {
    user: user === '' ? undefined : decodeComponent(user, USER.name, refuse),
    host: host.startsWith('[') ? parseIpLiteral(host.slice(1, -1), refuse) : parseHostName(host, refuse),
    port: port === undefined ? undefined : parseNumber(port, 1, maxPort, 'port', refuse),
  };
}

function parseHostName(text: string, refuse: Refuse): string {
  checkComponent(text, HOST, refuse);
  const host = decodeComponent(text, HOST.name, refuse);
  // Escapes can encode characters that no host name contains and that would change the meaning of a formatted URI.
  if (/[\s\p{Cc}/\\:?#@[\]%<>^|]/u.test(host)) throw refuse("the URI's host contains a character not allowed in names");
  return host;
}

/** The text between the brackets: an IPv6 address and, after `%25` (RFC 6874) or a bare `%`, its zone. */
function parseIpLiteral(text: string, refuse: Refuse): string {
  const [address = '', ...rest] = text.split('%');
  if (!isIpv6(address)) throw refuse("the URI's host is in brackets but is not an IPv6 address");
  if (rest.length === 0) return address;
  const zone = rest.join('%').replace(/^25/, '');
  if (!/^[\w.-]+$/.test(zone)) throw refuse("the URI's IPv6 address has a malformed zone");
  return `${address}%${zone}`;
}

const IPV4 = /^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}$/;

/** Whether the text is an IPv6 address without a zone. (Not from node:net, which this layer must not import.) */
export function isIpv6(text: string): boolean {
  const halves = text.split('::');
  if (halves.length > 2) return false;
  let groups = 0;
  for (const [index, half] of halves.entries()) {
    if (half === '') continue;
    const pieces = half.split(':');
    for (const [place, piece] of pieces.entries()) {
      const isLast = index === halves.length - 1 && place === pieces.length - 1;
      if (isLast && IPV4.test(piece)) groups += 2;
      else if (/^[0-9A-Fa-f]{1,4}$/.test(piece)) groups += 1;
      else return false;
    }
  }
  return halves.length === 2 ? groups <= 7 : groups === 8;
}
