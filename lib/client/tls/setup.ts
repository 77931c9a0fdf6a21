// Everything that a connection needs for TLS, behind one import: node:tls and what uses it are loaded only by those
// who may need them.

import { isIP } from 'node:net';
import type { SecureContext } from 'node:tls';
import { domainToASCII } from 'node:url';
import { NbdConnectionError, type NbdError } from '../../errors.js';
import type { StreamTransport } from '../../transport/stream.js';
import { startTls } from '../../transport/tls.js';
import type { Transport } from '../../transport/transport.js';
import { checkCertificateName, explainTls } from './errors.js';
import { loadTls, makeContext, type TlsMaterial } from './material.js';
import type { TlsSettings } from '../options/tls-options.js';

/** The names that a server goes by. */
export interface TlsNames {
  /** Where it was looked for. */
  readonly serverName?: string;
  /** What its certificate must say, where that is another name. */
  readonly certificateName?: string;
}

/** The material of one connection; its files have been read. */
export class TlsSetup {
  readonly #settings: TlsSettings;
  readonly #material: TlsMaterial;

  private constructor(settings: TlsSettings, material: TlsMaterial) {
    this.#settings = settings;
    this.#material = material;
  }

  static async load(settings: TlsSettings): Promise<TlsSetup> {
    return new TlsSetup(settings, await loadTls(settings));
  }

  /** Throws where the material is of no use, before anything is opened. */
  check(): void {
    makeContext(this.#material);
  }

  /** At once takes the stream over, and resolves when the session is verified. */
  start(raw: StreamTransport, names: TlsNames): Promise<Transport> {
    const { psk, hasCertificate, hasOwnAuthority } = this.#material;
    const { tlsHostname, tlsVerifyPeer } = this.#settings;
    const { serverName = '', certificateName = serverName } = names;
    const name = tlsHostname === '' ? certificateName : tlsHostname;
    const facts = { pskIdentity: psk?.identity ?? null, name, hasCertificate };
    return startTls(raw, {
      context: this.#context(),
      // Addresses have no place in SNI, and names go there as DNS has them.
      serverName: isIP(serverName.replace(/%.*$/, '')) === 0 ? domainToASCII(serverName.replace(/\.$/, '')) : '',
      // With a pre-shared key there is nothing to verify but that it was used.
      verify: psk !== null || tlsVerifyPeer,
      // With a pre-shared key there is no certificate to look into. One is not trusted whatever its name: see loadTls().
      checkIdentity: (certificate) =>
        tlsVerifyPeer && psk === null ? checkCertificateName(certificate, { name, hasOwnAuthority }) : undefined,
      psk: psk ?? undefined,
      explain: (error, moment) => explainTls(error, moment, facts),
    });
  }

  /** The server has agreed to TLS: where our own side cannot do it now, the connection is over. */
  #context(): SecureContext {
    try {
      return makeContext(this.#material);
    } catch (cause) {
      const { message, tlsProblem } = cause as NbdError;
      throw new NbdConnectionError(message, { code: 'EINVAL', tlsProblem, cause });
    }
  }
}
