// The constants of libnbd.h (1.24) under libnbd's name less LIBNBD_, but for the AIO_DIRECTION ones, which drive an
// event loop that is Node's own here. These are the API's own numbers; those that
// go over the wire have their protocol names in constants.ts, and the few that are in both have the same value.

// setTls, setUriAllowTls.
/** Never use TLS. */
export const TLS_DISABLE = 0;
/** Use TLS if the server supports it, else go on in plaintext. */
export const TLS_ALLOW = 1;
/** Use TLS or fail. */
export const TLS_REQUIRE = 2;

// getBlockSize.
/** The smallest block that the server accepts; offsets and counts must be multiples of it. */
export const SIZE_MINIMUM = 0;
/** The block size that the server handles best. */
export const SIZE_PREFERRED = 1;
/** The longest request that the server accepts. */
export const SIZE_MAXIMUM = 2;
/** The longest payload of one write that this client sends, derived from the server's maximum. */
export const SIZE_PAYLOAD = 3;

// Flags of commands.
/** Write through to permanent storage before replying. */
export const CMD_FLAG_FUA = 0x01;
/** Zero without punching a hole. */
export const CMD_FLAG_NO_HOLE = 0x02;
/** Do not split the reply to a structured read. */
export const CMD_FLAG_DF = 0x04;
/** Return one extent only. */
export const CMD_FLAG_REQ_ONE = 0x08;
/** Fail with ENOTSUP rather than zero at the speed of a write. */
export const CMD_FLAG_FAST_ZERO = 0x10;
/** The request's length counts its payload, not its effect; set by itself unless STRICT_AUTO_FLAG is off. */
export const CMD_FLAG_PAYLOAD_LEN = 0x20;
/** All command flags. */
export const CMD_FLAG_MASK = 0x3f;

// setHandshakeFlags.
/** Speak the fixed newstyle handshake if the server does. */
export const HANDSHAKE_FLAG_FIXED_NEWSTYLE = 0x01;
/** Leave out the 124 zero bytes after NBD_OPT_EXPORT_NAME if the server can. */
export const HANDSHAKE_FLAG_NO_ZEROES = 0x02;
/** All handshake flags. */
export const HANDSHAKE_FLAG_MASK = 0x03;

// setStrictMode.
/** Refuse commands that the server did not advertise, and writes to a read-only export. */
export const STRICT_COMMANDS = 0x01;
/** Refuse flags that a command does not have. */
export const STRICT_FLAGS = 0x02;
/** Refuse ranges that leave the export. */
export const STRICT_BOUNDS = 0x04;
/** Refuse commands of no bytes. */
export const STRICT_ZERO_SIZE = 0x08;
/** Refuse ranges that are not multiples of the server's minimum block size. */
export const STRICT_ALIGN = 0x10;
/** Refuse writes longer than SIZE_PAYLOAD. */
export const STRICT_PAYLOAD = 0x20;
/** Set CMD_FLAG_PAYLOAD_LEN as the negotiated headers demand, whatever the caller passed. */
export const STRICT_AUTO_FLAG = 0x40;
/** All strict checks: the default. */
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
/** All transports: the default. */
export const ALLOW_TRANSPORT_MASK = 0x0f;

// shutdown.
/** Abort the commands that have not been sent at all, instead of sending them first. */
export const SHUTDOWN_ABANDON_PENDING = 0x1_0000;
/** All shutdown flags. */
export const SHUTDOWN_MASK = 0x1_0000;

// The status of a preadStructured chunk.
/** The chunk holds data. */
export const READ_DATA = 1;
/** The chunk is a hole and reads as zeroes. */
export const READ_HOLE = 2;
/** The chunk could not be read; the server's errno comes with it. */
export const READ_ERROR = 3;

// Meta contexts.
/** The namespace of the contexts that the protocol itself defines. */
export const NAMESPACE_BASE = 'base:';
/** Which blocks are allocated, and which read as zeroes: STATE_HOLE and STATE_ZERO. */
export const CONTEXT_BASE_ALLOCATION = 'base:allocation';
/** A bit of base:allocation: the block is not allocated. */
export const STATE_HOLE = 0x01;
/** A bit of base:allocation: the block reads as zeroes. */
export const STATE_ZERO = 0x02;
/** The namespace of QEMU's contexts. */
export const NAMESPACE_QEMU = 'qemu:';
/** Which blocks changed since a bitmap was made: STATE_DIRTY. The bitmap's name is to be appended. */
export const CONTEXT_QEMU_DIRTY_BITMAP = 'qemu:dirty-bitmap:';
/** How deep in the chain of backing files a block is allocated: 0 nowhere, 1 on top, and so on. */
export const CONTEXT_QEMU_ALLOCATION_DEPTH = 'qemu:allocation-depth';
/** A bit of qemu:dirty-bitmap: the block is dirty. */
export const STATE_DIRTY = 0x01;
