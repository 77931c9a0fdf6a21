// The public face of the client: exports only.

export { NbdConnection, type ByteCount } from './client/connection.js';
export type { ExportFacts, NbdExport } from './client/export.js';
export type { DebugCallback } from './client/debug.js';
export type { NbdFacts } from './client/facts.js';
export type { NbdConnectionEvents, NbdHandle } from './client/handle.js';
export type { ContextCallback, ListCallback, NbdNegotiation, OptionCallback } from './client/negotiation.js';
export type { NbdConnectionOptions } from './client/options.js';
export type { NbdSecurity } from './client/security.js';
export type { ConnectionState } from './client/state.js';
export type { NbdTarget } from './client/targets.js';
export type { NbdTlsOptions, PemInput, TlsPsk } from './client/tls-options.js';
export type { CommandTrace } from './client/tracing.js';
export {
  NbdError,
  NbdStrictError,
  NbdCommandError,
  NbdOptionError,
  NbdProtocolError,
  NbdConnectionError,
  NbdStateError,
  NbdQueueFullError,
  NbdUnflushedError,
  type ByteRange,
  type NbdErrorDetails,
} from './errors.js';
export type { ChunkCallback, ChunkStatus, CompletionCallback, ExtentCallback } from './protocol/command.js';
export type { BlockStatusEntries } from './protocol/block-status.js';
export type { ListedExport } from './protocol/handshake/opt-list.js';
export type { ProtocolName } from './protocol/export-info.js';
export { type Extent, Extents } from './util/extents.js';
export { type ExtentsOptions, extents } from './stream/extents.js';
export * from './protocol/client-constants.js';
export { prefetch, type PrefetchOptions, type PrefetchResult, type RangeOptions } from './stream/prefetch.js';
export { copy, type CopyOptions, type CopyResult } from './stream/copy.js';
export {
  type Connections,
  type CopyDestination,
  type CopySource,
  exportDestination,
  exportSource,
  nullDestination,
  type ZeroRun,
} from './stream/endpoint.js';
export { createReadStream, type ReadStreamOptions } from './stream/read-stream.js';
export { createWriteStream, type WriteStreamOptions } from './stream/write-stream.js';
export { compare, type CompareOptions, type CompareResult } from './stream/compare.js';
export { blockHash, hash, type HashOptions } from './stream/hash.js';
export type { Progress } from './stream/lanes.js';
export { NbdPool, type PoolStatistics } from './pool/pool.js';
export type { NbdPoolOptions, ReconnectOptions, RetryOptions } from './pool/options.js';
export type { NbdPoolEvents, PoolAway, PoolBack, PoolLost, PoolReconnected, PoolRetry } from './pool/events.js';
