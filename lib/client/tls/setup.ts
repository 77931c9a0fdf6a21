// Everything that a connection needs for TLS, behind one import: node:tls and its users are loaded only by connections
// that may need them.

import { isIP } from 'node:net';
import type { SecureContext } from 'node:tls';
import { domainToASCII } from 'node:url';
import { NbdConnectionError, type NbdError } from '../../errors.js';
import { StreamTransport } from '../../transport/stream.js';
import { startTls } from '../../transport/tls.js';
import type { Transport } from '../../transport/transport.js';
import { checkCertificateName, explainTls } from './errors.js';
import { loadTls, makeContext, type TlsMaterial } from './material.js';
import type { TlsSettings } from '../options/tls-options.js';

/** The names of a server. */
export interface TlsNames {
  /** The host name that was connected to. */
  readonly serverName?: string;
  /** The name that its certificate must be issued for. Default `serverName`. */
  readonly certificateName?: string;
}

/** The TLS material of one connection, with all files read. */
export class TlsSetup {
  readonly #settings: TlsSettings;
  readonly #material: TlsMaterial;
  /** Kept, because making it takes milliseconds. */
  #checked: SecureContext | null = null;

  private constructor(settings: TlsSettings, material: TlsMaterial) {
    this.#settings = settings;
    this.#material = material;
  }

  static async load(settings: TlsSettings): Promise<TlsSetup> {
    return new TlsSetup(settings, await loadTls(settings));
  }

  /** Throws if the material cannot be used, before anything is opened. */
  check(): void {
    this.#checked = makeContext(this.#material);
  }

  /** Takes ownership of the stream at once, and resolves when the session is verified. */
  async start(raw: Transport, names: TlsNames): Promise<Transport> {
    if (!(raw instanceof StreamTransport)) {
      throw new NbdConnectionError('TLS is not possible on this transport', { code: 'ENOTSUP' });
    }
    const { psk, hasCertificate, hasOwnAuthority } = this.#material;
    const { tlsHostname, tlsVerifyPeer } = this.#settings;
    const { serverName = '', certificateName = serverName } = names;
    const name = tlsHostname === '' ? certificateName : tlsHostname;
    const facts = { pskIdentity: psk?.identity ?? null, name, hasCertificate };
    return startTls(raw, {
      context: this.#context(),
      // SNI must not contain addresses, and contains names in their DNS (ASCII) form.
      serverName: isIP(serverName.replace(/%.*$/, '')) === 0 ? domainToASCII(serverName.replace(/\.$/, '')) : '',
      // With a pre-shared key, verifying means that the key was used.
      verify: psk !== null || tlsVerifyPeer,
      // With a pre-shared key there is no certificate to check; if there is one it is never trusted: see loadTls().
      checkIdentity: (certificate) =>
        tlsVerifyPeer && psk === null ? checkCertificateName(certificate, { name, hasOwnAuthority }) : undefined,
      psk: psk ?? undefined,
      explain: (error, moment) => explainTls(error, moment, facts),
    });
  }

  /** The server has already agreed to TLS: if this side cannot do it now, the connection fails. */
  #context(): SecureContext {
    if (this.#checked !== null) return this.#checked;
    try {
      return makeContext(this.#material);
    } catch (cause) {
      const { message, tlsProblem } = cause as NbdError;
      throw new NbdConnectionError(message, { code: 'EINVAL', tlsProblem, cause });
    }
  }
}
