// The constants of libnbd.h (1.24) under libnbd's names without LIBNBD_. The AIO_DIRECTION ones are left out, because
// Node drives the event loop here. These are numbers of the API; those on the wire have their protocol names in
// constants.ts, and the few that are in both files have the same value.

// setTls, setUriAllowTls.
/** Never use TLS. */
export const TLS_DISABLE = 0;
/** Use TLS if the server supports it, otherwise plaintext. */
export const TLS_ALLOW = 1;
/** Use TLS or fail. */
export const TLS_REQUIRE = 2;

// getBlockSize.
/** The minimum block size: offsets and counts must be multiples of it. */
export const SIZE_MINIMUM = 0;
/** The preferred block size: the server handles multiples of it most efficiently. */
export const SIZE_PREFERRED = 1;
/** The maximum block size: the longest request that the server accepts. */
export const SIZE_MAXIMUM = 2;
/** The longest payload of one write that this client sends, derived from the server's maximum block size. */
export const SIZE_PAYLOAD = 3;

// Flags of commands.
/** Force unit access: the server replies only when the data is on permanent storage. */
export const CMD_FLAG_FUA = 0x01;
/** Write zeroes without punching a hole. */
export const CMD_FLAG_NO_HOLE = 0x02;
/** Do not fragment the reply to a structured read. */
export const CMD_FLAG_DF = 0x04;
/** Return only one extent per metadata context. */
export const CMD_FLAG_REQ_ONE = 0x08;
/** Fail with ENOTSUP if zeroing is not faster than writing zeroes. */
export const CMD_FLAG_FAST_ZERO = 0x10;
/** The request's length is that of its payload, not of the range. Set automatically unless STRICT_AUTO_FLAG is off. */
export const CMD_FLAG_PAYLOAD_LEN = 0x20;
/** All command flags. */
export const CMD_FLAG_MASK = 0x3f;

// setHandshakeFlags.
/** Use the fixed newstyle handshake if the server supports it. */
export const HANDSHAKE_FLAG_FIXED_NEWSTYLE = 0x01;
/** Omit the 124 zero bytes of the reply to NBD_OPT_EXPORT_NAME if the server supports that. */
export const HANDSHAKE_FLAG_NO_ZEROES = 0x02;
/** All handshake flags. */
export const HANDSHAKE_FLAG_MASK = 0x03;

// setStrictMode.
/** Refuse commands and flags that the server did not advertise, and writes to a read-only export. */
export const STRICT_COMMANDS = 0x01;
/** Refuse flags that are not defined for the command. */
export const STRICT_FLAGS = 0x02;
/** Refuse ranges that reach beyond the end of the export. */
export const STRICT_BOUNDS = 0x04;
/** Refuse commands with a count of 0. */
export const STRICT_ZERO_SIZE = 0x08;
/** Refuse ranges that are not aligned to the server's minimum block size. */
export const STRICT_ALIGN = 0x10;
/** Refuse writes longer than SIZE_PAYLOAD. */
export const STRICT_PAYLOAD = 0x20;
/** Set CMD_FLAG_PAYLOAD_LEN as the negotiated headers require, whatever the caller passes. */
export const STRICT_AUTO_FLAG = 0x40;
/** All strict checks, the default. */
export const STRICT_MASK = 0x7f;

// setUriAllowTransports.
/** Allow URIs that connect over TCP. */
export const ALLOW_TRANSPORT_TCP = 0x01;
/** Allow URIs that connect to a Unix domain socket. */
export const ALLOW_TRANSPORT_UNIX = 0x02;
/** Allow URIs that connect over AF_VSOCK. */
export const ALLOW_TRANSPORT_VSOCK = 0x04;
/** Allow URIs that connect through ssh. */
export const ALLOW_TRANSPORT_SSH = 0x08;
/** All transports, the default. */
export const ALLOW_TRANSPORT_MASK = 0x0f;

// shutdown.
/** Reject the commands that have not been sent yet, instead of sending them first. */
export const SHUTDOWN_ABANDON_PENDING = 0x1_0000;
/** All shutdown flags. */
export const SHUTDOWN_MASK = 0x1_0000;

// The status of a preadStructured chunk.
/** The chunk contains data. */
export const READ_DATA = 1;
/** The chunk is a hole and reads as zeroes. */
export const READ_HOLE = 2;
/** The range could not be read; the chunk contains the server's error. */
export const READ_ERROR = 3;

// Meta contexts.
/** The namespace of the contexts that the NBD protocol defines. */
export const NAMESPACE_BASE = 'base:';
/** The context that reports which blocks are allocated and which read as zeroes: STATE_HOLE and STATE_ZERO. */
export const CONTEXT_BASE_ALLOCATION = 'base:allocation';
/** Flag of base:allocation: the block is not allocated. */
export const STATE_HOLE = 0x01;
/** Flag of base:allocation: the block reads as zeroes. */
export const STATE_ZERO = 0x02;
/** The namespace of QEMU's contexts. */
export const NAMESPACE_QEMU = 'qemu:';
/** Prefix of contexts that report which blocks a dirty bitmap marks, STATE_DIRTY; append the bitmap's name. */
export const CONTEXT_QEMU_DIRTY_BITMAP = 'qemu:dirty-bitmap:';
/** The context whose flags are the depth in the backing chain at which a block is allocated: 0 nowhere, 1 top … */
export const CONTEXT_QEMU_ALLOCATION_DEPTH = 'qemu:allocation-depth';
/** Flag of qemu:dirty-bitmap: the block is dirty. */
export const STATE_DIRTY = 0x01;
