/// <reference types="node" preserve="true" />

// The public API of `nbd-sdk/server`: exports only.

export { NbdServer, type NbdServerAddress } from './server.js';
export type { NbdServerBase } from './server-base.js';
export type { ServeOptions } from './streams/web-stream.js';
export {
  type NbdServerOptions,
  type NbdServerTlsOptions,
  type OpenedExport,
  type OpenExport,
  type OpeningClient,
  type PskKeys,
} from './options.js';
export { type FlagOverrides, type MetaContext, type NbdExportOptions } from './served-export.js';
export {
  type BackendExtent,
  type BackendExtents,
  type BlockSize,
  type NbdBackend,
  type WriteOptions,
  type ZeroOptions,
} from './backends/backend.js';
export { BlobBackend, type BlobLike } from './backends/blob.js';
export { type DataPart, MemoryBackend, type MemoryBackendOptions } from './backends/memory.js';
export { FileBackend, type FileBackendOptions } from './backends/file.js';
export { fillPattern, PatternBackend, type PatternBackendOptions } from './backends/pattern.js';
export { OverlayBackend, type OverlayBackendOptions } from './backends/overlay.js';
export { RandomBackend, type RandomBackendOptions } from './backends/random.js';
export { ExtentMap } from './backends/extent-map.js';
export {
  type BytesFault,
  type ChosenFault,
  type CorruptFault,
  type CutFault,
  type DelayFault,
  type ErrorFault,
  type Fault,
  type FaultCondition,
  FaultPlan,
  type HoldFault,
  type RequestFault,
  type StallFault,
} from './faults.js';
export { type FaultedRequest, type HeldRequest } from './held-requests.js';
export { type CommandName, type NamedCommand } from './transmission/command-name.js';
export { type NbdServerStatistics } from './statistics.js';
export { type Feature, type HandshakeFeatures, type OptionRefusal } from '../protocol/handshake/serve-offer.js';
export { type U64 } from '../util/u64.js';
