/// <reference types="node" preserve="true" />

// The public API of `nbd-sdk`: exports only.

export { NbdConnection } from './client/node.js';
export type { ByteCount, ExportFacts, NbdCommandFlags, NbdCommandOptions, NbdExport } from './client/export.js';
export type { ConnectOptions, NbdConnectionBase } from './client/connection.js';
export type { WebSocketClass, WebSocketEventLike, WebSocketLike, WebStreams } from './transport/web/types.js';
export type { DebugCallback } from './client/debug.js';
export type { NbdFacts } from './client/api/facts.js';
export type { NbdPoolFacts } from './pool/pool-facts.js';
export type { NbdConnectionEvents, NbdSettings } from './client/api/settings.js';
export type { ContextCallback, ListCallback, NbdOptionMode, OptionCallback } from './client/api/option-mode.js';
export type { NbdConnectionOptions } from './client/options/options.js';
export type { NbdSecuritySettings } from './client/api/security-settings.js';
export type { ConnectionState } from './client/state.js';
export type { NbdTarget } from './client/connect/targets.js';
export type { NbdTlsOptions, PemInput, TlsPsk } from './client/options/tls-options.js';
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
export type { ChunkCallback, ChunkStatus, ExtentCallback } from './protocol/reply-target.js';
export type { CompletionCallback } from './client/transmission/command.js';
export type { BlockStatusEntries } from './protocol/block-status.js';
export type { ListedExport } from './protocol/handshake/opt-list.js';
export type { ProtocolName } from './protocol/export-info.js';
export { type Extent, Extents } from './util/extents.js';
export { type ExtentsOptions, extents } from './bulk/maps/extents.js';
export { type MergedExtent, mergedExtents, type MergedExtentsOptions } from './bulk/maps/merged.js';
export { type Change, changes, type ChangesOptions } from './bulk/maps/changes.js';
export { type MapTotals, totals, type TotalsOptions } from './bulk/maps/totals.js';
export type { ContextsOptions, MapOptions } from './bulk/maps/contexts.js';
export * from './protocol/client-constants.js';
export { partitions, type PartitionsOptions } from './bulk/partitions/partitions.js';
export type { Partition, PartitionTable } from './bulk/partitions/table.js';
export { prefetch, type PrefetchOptions, type PrefetchProgress, type PrefetchResult } from './bulk/prefetch.js';
export { copy, type CopyOptions, type CopyResult } from './bulk/copy.js';
export {
  type Connections,
  type CopyDestination,
  type CopySource,
  exportDestination,
  exportSource,
  nullDestination,
  type ZeroRun,
} from './bulk/ends/endpoint.js';
export {
  fileDestination,
  type FileDestination,
  type FileDestinationOptions,
  fileSource,
  type FileSource,
  type FileSourceOptions,
} from './bulk/ends/file.js';
export { createReadStream, type ReadStreamOptions } from './bulk/streams/read-stream.js';
export { createWriteStream, type WriteStreamOptions } from './bulk/streams/write-stream.js';
export { compare, type CompareOptions, type CompareResult } from './bulk/compare.js';
export { BlockHasher, type BlockHasherOptions } from './bulk/hash/block-hasher.js';
export { blockHash, type BlockHashOptions, hash, type HashOptions } from './bulk/hash/hash.js';
export type { StatusOptions } from './bulk/options.js';
export type { ExportLike } from './bulk/facts.js';
export type { Progress } from './bulk/progress.js';
export { RateLimiter } from './transport/rate-limiter.js';
export { fileCheckpoint, type FileCheckpointOptions } from './bulk/copy/file-checkpoint.js';
export type { CheckpointStore } from './bulk/copy/checkpoint.js';
export type { GivenRange } from './bulk/ranges.js';
export type { CountOrAuto } from './bulk/in-flight.js';
export type { DestinationLike, SourceLike } from './bulk/ends/ends.js';
export { NbdPool, type PoolStatistics } from './pool/pool.js';
export type { NbdPoolOptions, ReconnectOptions, RetryOptions } from './pool/options.js';
export type { NbdPoolEvents, PoolAway, PoolBack, PoolLost, PoolReconnected, PoolRetry } from './pool/events.js';
