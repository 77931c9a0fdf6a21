/// <reference lib="esnext.disposable" preserve="true" />

// The public API of `nbd-sdk/web/bulk`: exports only. Work on whole exports, as far as it needs nothing of Node. An entry of
// its own, because a page that serves a file does not need it.

export { type ExtentsOptions, extents } from '../../bulk/maps/extents.js';
export { type MergedExtent, mergedExtents, type MergedExtentsOptions } from '../../bulk/maps/merged.js';
export { type Change, changes, type ChangesOptions } from '../../bulk/maps/changes.js';
export { type MapTotals, totals, type TotalsOptions } from '../../bulk/maps/totals.js';
export { prefetch, type PrefetchOptions, type PrefetchProgress, type PrefetchResult } from '../../bulk/prefetch.js';
export { copy, type CopyOptions, type CopyResult } from '../../bulk/copy.js';
export {
  type Connections,
  type CopyDestination,
  type CopySource,
  exportDestination,
  exportSource,
  nullDestination,
  type ZeroRun,
} from '../../bulk/ends/endpoint.js';
export { compare, type CompareOptions, type CompareResult } from '../../bulk/compare.js';
export { RateLimiter } from '../../transport/rate-limiter.js';

export type { ContextsOptions, MapOptions } from '../../bulk/maps/contexts.js';
export type { StatusOptions } from '../../bulk/options.js';
export type { ExportLike } from '../../bulk/facts.js';
export type { Progress } from '../../bulk/progress.js';
export type { CheckpointStore } from '../../bulk/copy/checkpoint.js';
export type { GivenRange } from '../../bulk/ranges.js';
export type { CountOrAuto } from '../../bulk/in-flight.js';
export type { DestinationLike, SourceLike } from '../../bulk/ends/ends.js';
