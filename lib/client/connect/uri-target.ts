// Applies a URI to a connection: checks everything first, then sets its settings.

import { TLS_DISABLE, TLS_REQUIRE } from '../../protocol/client-constants.js';
import { checkUriAllowed, type NbdUri } from '../../protocol/uri.js';
import { formatUri } from '../../protocol/uri-format.js';
import { checkName, refuse } from '../options/checks.js';
import type { Target } from './target.js';
import { isExplicit, type NbdConnectionOptions, type Settings } from '../options/options.js';
import { sshTarget, vsockTarget } from './process-targets.js';
import { tcpTarget, unixTarget } from './targets.js';
import { checkIdentity, checkPriority, type TlsSettings } from '../options/tls-options.js';

/** The target of a URI. Throws NbdStrictError, and then leaves the settings unchanged. */
export function uriTarget(method: string, uri: NbdUri, settings: Settings): Target {
  const permissions = {
    transports: settings.uriAllowTransports,
    tls: settings.uriAllowTls,
    localFile: settings.uriAllowLocalFile,
    tlsPriority: settings.uriAllowTlsPriority,
  };
  checkUriAllowed(uri, permissions, method);
  checkNotOverridden(method, uri, settings);
  const tls = tlsSettings(method, uri, settings);
  const target = makeTarget(method, uri, settings);
  // A URI without an export name keeps the name that was set.
  const exportName = uri.exportName === '' ? settings.exportName : checkName(method, uri.exportName);
  // A session is a credential: messages mask the export name that contains it, unless the program decides otherwise.
  const isMasked = uri.hasSession === true && !isExplicit(settings, 'maskExportName');
  Object.assign(settings, { exportName, ...tls, ...(isMasked ? { maskExportName: true } : {}) });
  return target;
}

/** A URI may only set how the server is verified if the program has not, or to the same value. */
function checkNotOverridden(method: string, uri: NbdUri, settings: Settings): void {
  const forbid = (parameter: string, name: keyof NbdConnectionOptions): never => {
    throw refuse(method, `the URI's ${parameter} contradicts ${name}, which the program has set`, 'EPERM');
  };
  for (const [parameter, name, value] of [
    ['tls-verify-peer', 'tlsVerifyPeer', uri.tlsVerifyPeer],
    ['tls-hostname', 'tlsHostname', uri.tlsHostname],
  ] as const) {
    if (value !== undefined && value !== settings[name] && isExplicit(settings, name)) forbid(parameter, name);
  }
  // With tls-type=x509 the pre-shared key would be ignored.
  if (uri.tlsType === 'x509') {
    if (settings.tlsPsk !== null) forbid('tls-type', 'tlsPsk');
    if (settings.tlsPskFile !== '' && isExplicit(settings, 'tlsPskFile')) forbid('tls-type', 'tlsPskFile');
  }
}

/**
 * The URI of the connection, including the settings that a URI can express (libnbd's nbd_get_uri). It is `nbds` if TLS
 * was negotiated, even if TLS was only allowed: a client that uses the URI must not fall back to plaintext.
 */
export function uriOf(method: string, target: Target | null, settings: Settings, isEncrypted = false): string {
  if (target?.uri !== undefined) return target.uri;
  const location = target?.location;
  if (location == null) throw refuse(method, `${target?.description ?? 'this connection'} has no URI`);
  const { tls, tlsCertificates, tlsPskFile, tlsHostname, tlsPriority, tlsUsername, tlsVerifyPeer } = settings;
  const secured = tls !== TLS_DISABLE || isEncrypted;
  const given = (name: string, value: string): object => (secured && value !== '' ? { [name]: value } : {});
  return formatUri({
    ...location,
    tls: tls === TLS_REQUIRE || isEncrypted,
    exportName: settings.exportName,
    ...given('tlsCertificates', tlsCertificates),
    ...given('tlsPskFile', tlsPskFile),
    ...given('tlsHostname', tlsHostname),
    ...given('tlsPriority', tlsPriority),
    ...given('tlsUsername', tlsUsername),
    ...(secured && !tlsVerifyPeer ? { tlsVerifyPeer } : {}),
  });
}

function makeTarget(method: string, uri: NbdUri, settings: Settings): Target {
  switch (uri.transport) {
    case 'tcp':
      return tcpTarget(method, uri.host, uri.port);
    case 'unix':
      return unixTarget(method, uri.socketPath, settings);
    case 'vsock':
      return vsockTarget(method, uri.cid, uri.port, settings);
    case 'ssh':
      return sshTarget(method, uri, settings);
  }
}

function tlsSettings(method: string, uri: NbdUri, settings: Settings): Partial<TlsSettings> {
  const { tlsPskFile } = uri;
  if (uri.tlsType === 'anon') throw refuse(method, 'anonymous TLS (tls-type=anon) is not secure', 'ENOTSUP');
  if (uri.tlsType === 'psk' && tlsPskFile === undefined && settings.tlsPsk === null && settings.tlsPskFile === '') {
    throw refuse(method, 'tls-type=psk requires a pre-shared key (tlsPskFile or tlsPsk)');
  }
  return {
    ...(uri.tls ? { tls: TLS_REQUIRE } : {}),
    ...(uri.tlsUsername === undefined ? {} : { tlsUsername: checkIdentity(method, uri.tlsUsername) }),
    ...(uri.tlsHostname === undefined ? {} : { tlsHostname: uri.tlsHostname }),
    ...(uri.tlsVerifyPeer === undefined ? {} : { tlsVerifyPeer: uri.tlsVerifyPeer }),
    ...(uri.tlsCertificates === undefined ? {} : { tlsCertificates: uri.tlsCertificates }),
    ...(tlsPskFile === undefined ? {} : { tlsPskFile }),
    ...(uri.tlsPriority === undefined ? {} : { tlsPriority: checkPriority(method, uri.tlsPriority) }),
    ...(uri.tlsType === 'x509' ? { tlsPsk: null, tlsPskFile: '' } : {}),
  };
}
