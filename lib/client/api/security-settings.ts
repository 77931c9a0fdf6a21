// TLS settings, URI permissions and the socket-activation name.

import { NbdFacts } from './facts.js';
import { lifecycleOf } from './settings.js';
import { assign, type NbdConnectionOptions, type Settings } from '../options/options.js';
import { checkState, WHEN_CREATED } from '../state.js';
import { tlsUsernameOf } from '../options/tls-options.js';

/**
 * TLS and URI settings of an {@link NbdConnection}. Each is also a constructor option; `ca`, `cert`, `key`,
 * `passphrase`, `crl` and `tlsPsk`, which hold their material in memory, are constructor options only. Set them before
 * connecting: later they throw NbdStateError `EINVAL`. An invalid value throws NbdStrictError `EINVAL` and the old
 * value stays.
 */
export abstract class NbdSecuritySettings extends NbdFacts {
  get #settings(): Settings {
    return lifecycleOf(this).settings;
  }

  #set(method: string, name: keyof NbdConnectionOptions, value: unknown): void {
    const { phase, error } = lifecycleOf(this);
    checkState(method, phase, WHEN_CREATED, error);
    assign(this.#settings, name, value, method);
  }

  /** `TLS_DISABLE`, `TLS_ALLOW` or `TLS_REQUIRE` (libnbd: `nbd_set_tls`). `nbds:` URIs require it by themselves. */
  setTls(tls: number): void {
    this.#set('setTls', 'tls', tls);
  }

  /** As set, or as a URI set it; `TLS_DISABLE` by default (libnbd: `nbd_get_tls`). */
  getTls(): number {
    return this.#settings.tls;
  }

  /**
   * The folder of the certificates (libnbd: `nbd_set_tls_certificates`): `ca-cert.pem`, and if they are needed
   * `client-cert.pem`, `client-key.pem`, `client-cert-0.pem` …, `ca-crl.pem`. It is read when the connection is made.
   */
  setTlsCertificates(folder: string): void {
    this.#set('setTlsCertificates', 'tlsCertificates', folder);
  }

  /** A file of pre-shared keys, used in place of certificates (libnbd: `nbd_set_tls_psk_file`). */
  setTlsPskFile(path: string): void {
    this.#set('setTlsPskFile', 'tlsPskFile', path);
  }

  /** Whether the server's certificate is verified (libnbd: `nbd_set_tls_verify_peer`). */
  setTlsVerifyPeer(verify: boolean): void {
    this.#set('setTlsVerifyPeer', 'tlsVerifyPeer', verify);
  }

  /** As set; true by default (libnbd: `nbd_get_tls_verify_peer`). */
  getTlsVerifyPeer(): boolean {
    return this.#settings.tlsVerifyPeer;
  }

  /**
   * The name that the server's certificate must have; `''` for the name of the host (libnbd: `nbd_set_tls_hostname`).
   */
  setTlsHostname(name: string): void {
    this.#set('setTlsHostname', 'tlsHostname', name);
  }

  /** As set; `''` by default (libnbd: `nbd_get_tls_hostname`). */
  getTlsHostname(): string {
    return this.#settings.tlsHostname;
  }

  /** The user whose pre-shared key is used (libnbd: `nbd_set_tls_username`). */
  setTlsUsername(name: string): void {
    this.#set('setTlsUsername', 'tlsUsername', name);
  }

  /** As set; by default `$LOGNAME`, else the system's name for this user (libnbd: `nbd_get_tls_username`). */
  getTlsUsername(): string {
    return tlsUsernameOf(this.#settings);
  }

  /** OpenSSL's list of ciphers, as `ciphers` of node:tls; `''` for the default (libnbd: `nbd_set_tls_priority`). */
  setTlsPriority(ciphers: string): void {
    this.#set('setTlsPriority', 'tlsPriority', ciphers);
  }

  /** As set; `''` by default (libnbd: `nbd_get_tls_priority`). */
  getTlsPriority(): string {
    return this.#settings.tlsPriority;
  }

  /** Which transports a URI may use: `ALLOW_TRANSPORT_*` (libnbd: `nbd_set_uri_allow_transports`). */
  setUriAllowTransports(mask: number): void {
    this.#set('setUriAllowTransports', 'uriAllowTransports', mask);
  }

  /** Whether URIs may, must or must not use TLS: `TLS_*` (libnbd: `nbd_set_uri_allow_tls`). */
  setUriAllowTls(tls: number): void {
    this.#set('setUriAllowTls', 'uriAllowTls', tls);
  }

  /** Whether a URI may name files of this machine (libnbd: `nbd_set_uri_allow_local_file`). */
  setUriAllowLocalFile(allow: boolean): void {
    this.#set('setUriAllowLocalFile', 'uriAllowLocalFile', allow);
  }

  /** Whether a URI may choose the ciphers (libnbd: `nbd_set_uri_allow_tls_priority`). */
  setUriAllowTlsPriority(allow: boolean): void {
    this.#set('setUriAllowTlsPriority', 'uriAllowTlsPriority', allow);
  }

  /**
   * The name that {@link NbdConnection.connectSystemdSocketActivation} gives the socket (libnbd:
   * `nbd_set_socket_activation_name`): up to 32 letters and digits; `''` for `unknown`.
   *
   * @throws NbdStrictError `ENAMETOOLONG` above 32 characters, `EINVAL` for others than ASCII letters and digits.
   */
  setSocketActivationName(name: string): void {
    this.#set('setSocketActivationName', 'socketActivationName', name);
  }

  /** As set; `''` by default (libnbd: `nbd_get_socket_activation_name`). */
  getSocketActivationName(): string {
    return this.#settings.socketActivationName;
  }
}
