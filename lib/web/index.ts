/// <reference lib="esnext.disposable" preserve="true" />

// The public API of `nbd-sdk/web`: exports only. Nothing in its graph imports a module of Node.

export { NbdConnection } from './connection.js';
export type { ConnectOptions, NbdConnectionBase } from '../client/connection.js';
export type { ByteCount, ExportFacts, NbdCommandOptions, NbdExport } from '../client/export.js';
export type { DebugCallback } from '../client/debug.js';
export type { NbdFacts } from '../client/api/facts.js';
export type { NbdConnectionEvents, NbdSettings } from '../client/api/settings.js';
export type { NbdSecuritySettings } from '../client/api/security-settings.js';
export type { NbdTlsOptions, PemInput, TlsPsk } from '../client/options/tls-options.js';
export type { ContextCallback, ListCallback, NbdOptionMode, OptionCallback } from '../client/api/option-mode.js';
export type { NbdConnectionOptions } from '../client/options/options.js';
export type { ConnectionState } from '../client/state.js';
export type { WebSocketClass, WebSocketEventLike, WebSocketLike, WebStreams } from '../transport/web/types.js';
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
} from '../errors.js';
export type { ChunkCallback, ChunkStatus, ExtentCallback } from '../protocol/reply-target.js';
export type { CompletionCallback } from '../client/transmission/command.js';
export type { BlockStatusEntries } from '../protocol/block-status.js';
export type { ListedExport } from '../protocol/handshake/opt-list.js';
export type { ProtocolName } from '../protocol/export-info.js';
export { type Extent, Extents } from '../util/extents.js';
export * from '../protocol/client-constants.js';

export { NbdServer } from './server.js';
export type { NbdServerBase } from '../server/server-base.js';
export type { NbdServerOptions } from '../server/options.js';
export type { ServeOptions } from '../server/streams/web-stream.js';
export type { NbdExportOptions } from '../server/served-export.js';
export type { NbdServerStatistics } from '../server/statistics.js';
export type { NbdBackend } from '../server/backends/backend.js';
export { BlobBackend, type BlobLike } from '../server/backends/blob.js';
export { MemoryBackend, type MemoryBackendOptions } from '../server/backends/memory.js';
export { PatternBackend, type PatternBackendOptions } from '../server/backends/pattern.js';
