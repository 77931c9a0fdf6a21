// Every function of libnbd's client API (1.24) is a method of the same name in camelCase, or has its reason here.

import { describe, expect, it } from '@jest/globals';
import { NbdConnection } from '../../lib/index.js';

/** libnbd 1.24.4's functions without `nbd_`, by area. */
const FUNCTIONS: Readonly<Record<string, string>> = {
  handle: 'create close set_handle_name get_handle_name set_private_data get_private_data get_handle_size',
  debug: 'set_debug get_debug set_debug_callback clear_debug_callback',
  errors: 'get_error get_errno',
  library: 'get_package_name get_version supports_tls supports_vsock supports_uri get_version_extra',
  export: `set_export_name get_export_name set_full_info get_full_info set_request_block_size get_request_block_size
    get_canonical_export_name get_export_description`,
  tls: `set_tls get_tls get_tls_negotiated set_tls_certificates set_tls_verify_peer get_tls_verify_peer
    set_tls_username get_tls_username set_tls_hostname get_tls_hostname set_tls_psk_file set_tls_priority
    get_tls_priority`,
  features: `set_request_extended_headers get_request_extended_headers get_extended_headers_negotiated
    set_request_structured_replies get_request_structured_replies get_structured_replies_negotiated
    set_handshake_flags get_handshake_flags get_protocol`,
  uri: `connect_uri aio_connect_uri get_uri is_uri set_uri_allow_transports set_uri_allow_tls
    set_uri_allow_local_file set_uri_allow_tls_priority`,
  connect: `connect_unix connect_vsock connect_tcp connect_socket connect_command
    connect_systemd_socket_activation aio_connect aio_connect_unix aio_connect_vsock aio_connect_tcp
    aio_connect_socket aio_connect_command aio_connect_systemd_socket_activation`,
  subprocess: 'set_socket_activation_name get_socket_activation_name kill_subprocess get_subprocess_pid',
  options: `set_opt_mode get_opt_mode opt_go opt_abort opt_starttls opt_extended_headers opt_structured_reply
    opt_list opt_info aio_opt_go aio_opt_abort aio_opt_starttls aio_opt_extended_headers
    aio_opt_structured_reply aio_opt_list aio_opt_info`,
  contexts: `add_meta_context clear_meta_contexts get_nr_meta_contexts get_meta_context set_request_meta_context
    get_request_meta_context can_meta_context opt_list_meta_context opt_list_meta_context_queries
    opt_set_meta_context opt_set_meta_context_queries aio_opt_list_meta_context
    aio_opt_list_meta_context_queries aio_opt_set_meta_context aio_opt_set_meta_context_queries`,
  flags: `is_read_only is_rotational can_flush can_fua can_trim can_zero can_fast_zero can_df can_multi_conn
    can_cache can_block_status_payload`,
  size: 'get_size get_block_size',
  commands: `pread pread_structured pwrite flush trim cache zero block_status block_status_64
    block_status_filter aio_pread aio_pread_structured aio_pwrite aio_flush aio_trim aio_cache aio_zero
    aio_block_status aio_block_status_64 aio_block_status_filter`,
  completion: 'aio_command_completed aio_peek_command_completed aio_in_flight',
  strictness: 'set_strict_mode get_strict_mode set_pread_initialize get_pread_initialize',
  ending: 'shutdown aio_disconnect',
  eventLoop: 'poll poll2 aio_get_fd aio_get_direction aio_notify_read aio_notify_write',
  state: `aio_is_created aio_is_connecting aio_is_negotiating aio_is_ready aio_is_processing aio_is_dead
    aio_is_closed connection_state`,
  statistics: 'stats_bytes_sent stats_chunks_sent stats_bytes_received stats_chunks_received',
};

/** What has no method, and why. */
const EXCUSED: Readonly<Record<string, string>> = {
  create: 'new NbdConnection(options)',
  set_private_data: 'a property, a closure or a WeakMap holds it',
  get_private_data: 'a property, a closure or a WeakMap holds it',
  get_handle_size: 'the size of a C structure',
  get_error: 'errors are thrown, or reject',
  get_errno: 'errors are thrown, or reject, and have `errno` and `code`',
  aio_connect: 'a raw struct sockaddr: aioConnectTcp, aioConnectUnix and aioConnectVsock take its parts',
  poll: "Node's event loop does it",
  poll2: "Node's event loop does it",
  aio_get_fd: "Node's event loop has the descriptor",
  aio_get_direction: "Node's event loop knows it",
  aio_notify_read: "Node's event loop does it",
  aio_notify_write: "Node's event loop does it",
};

const names = Object.values(FUNCTIONS).flatMap((list) => list.split(/\s+/));
const camel = (name: string): string => name.replace(/_([a-z0-9])/g, (_, c: string) => c.toUpperCase());
const hasMethod = (name: string): boolean =>
  typeof (NbdConnection.prototype as unknown as Record<string, unknown>)[camel(name)] === 'function' ||
  typeof (NbdConnection as unknown as Record<string, unknown>)[camel(name)] === 'function';

describe('libnbd parity', () => {
  it('counts the 165 functions of 1.24', () => {
    expect(names).toHaveLength(165);
    expect(new Set(names).size).toBe(165);
  });

  it('has a method for each, or a reason', () => {
    expect(names.filter((name) => !hasMethod(name) && !Object.hasOwn(EXCUSED, name))).toEqual([]);
  });

  it('excuses only functions of libnbd that are missing here, and at most 20', () => {
    const excused = Object.keys(EXCUSED);
    expect(excused.filter((name) => hasMethod(name) || !names.includes(name))).toEqual([]);
    expect(excused.length).toBeLessThanOrEqual(20);
  });
});
