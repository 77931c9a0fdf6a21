// The inverse of parseUri: parseUri(formatUri(parts)) is equivalent to `parts`. The format is that of libnbd's
// nbd_get_uri (always with port and `/`, parameters in its order), but also escapes values that libnbd does not.

import { percentEncode } from '../util/percent.js';
import { DEFAULT_PORT } from './constants.js';
import type { NbdUriParts } from './uri-parts.js';

const SAFE_IN_USER = /[\w\-.~!*'();&=+$,]/;
const SAFE_IN_HOST = /[\w\-.~]/;
const SAFE_IN_PATH = /[\w\-.~!*'();@&=+$,/]/;
/** Without `+`, which some parsers read as a space, and without the separators `&` and `;`. */
const SAFE_IN_QUERY = /[\w\-.~!*'()@:,/]/;

/** Largest port in an authority that libxml2, libnbd's URI parser, accepts. */
const MAX_AUTHORITY_PORT = 0x7fff_ffff;

/** The URI of a connection, as getUri returns it. */
export function formatUri(parts: NbdUriParts): string {
  const parameters: string[] = [];
  const add = (name: string, value: string | number | boolean | undefined): void => {
    if (value !== undefined) parameters.push(`${name}=${percentEncode(String(value), SAFE_IN_QUERY)}`);
  };

  let host = '';
  let suffix = '';
  let user = parts.tlsUsername;
  switch (parts.transport) {
    case 'tcp':
      host = `${formatHost(parts.host)}:${parts.port}`;
      break;
    case 'unix':
      suffix = '+unix';
      add('socket', parts.socketPath);
      break;
    case 'vsock':
      suffix = '+vsock';
      host = String(parts.cid);
      if (parts.port > MAX_AUTHORITY_PORT) add('nbd-port', parts.port);
      else host += `:${parts.port}`;
      break;
    case 'ssh':
      suffix = '+ssh';
      host = `${formatHost(parts.host)}:${parts.port}`;
      user = parts.user;
      add('socket', parts.socketPath);
      if (parts.nbdPort !== DEFAULT_PORT) add('nbd-port', parts.nbdPort);
      if (parts.compress) add('compress', true);
      break;
  }
  add('tls-certificates', parts.tlsCertificates);
  add('tls-psk-file', parts.tlsPskFile);
  add('tls-hostname', parts.tlsHostname);
  add('tls-priority', parts.tlsPriority);
  add('tls-verify-peer', parts.tlsVerifyPeer);
  if (parts.tlsUsername !== user) add('tls-username', parts.tlsUsername);
  add('tls-type', parts.tlsType);

  const scheme = `${parts.tls ? 'nbds' : 'nbd'}${suffix}`;
  const userinfo = user === undefined ? '' : `${percentEncode(user, SAFE_IN_USER)}@`;
  const path = `/${percentEncode(parts.exportName, SAFE_IN_PATH)}`;
  return `${scheme}://${userinfo}${host}${path}${parameters.length === 0 ? '' : `?${parameters.join('&')}`}`;
}

/** An IPv6 address, the only kind of host with a colon, is in brackets, with its zone as in RFC 6874. */
function formatHost(host: string): string {
  return host.includes(':') ? `[${host.replace('%', '%25')}]` : percentEncode(host, SAFE_IN_HOST);
}
