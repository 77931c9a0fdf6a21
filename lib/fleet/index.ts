/// <reference types="node" preserve="true" />

// The entry point `nbd-sdk/fleet`: many exports, on many machines, with the jobs in Redis.

export {
  cancel,
  type CancelResult,
  pause,
  remove,
  resume,
  retry,
  type RetryResult,
  type SelectOptions,
} from './control.js';
export type { FleetEnd } from './ends.js';
export type { FleetJob, FleetKind, FleetLimits } from './job.js';
export type { FleetConnectOptions, FleetOptions } from './options.js';
export { plan, type PlanOptions, type PlanProgress, type PlanResult } from './plan.js';
export type { FleetFailure, FleetReason } from './reason.js';
export type { FleetRedis, FleetRedisClient, FleetRedisOptions } from './redis/target.js';
export { type FleetReport, report, type ReportOptions } from './report.js';
export type {
  FleetExport,
  FleetExportCounts,
  FleetRangeCounts,
  FleetServerState,
  FleetSnapshot,
  FleetWorkerState,
} from './snapshot.js';
export { type FleetProgress, watch, type WatchOptions } from './watch.js';
export { type FleetBackoff, FleetWorker, work, type WorkOptions, type WorkResult } from './work.js';
export type {
  FleetRange,
  FleetRangeDone,
  FleetRangeFailed,
  FleetRangeLost,
  FleetRangeRetry,
  FleetWorkerEvents,
} from './worker/events.js';
export type { FenceReason } from './worker/lease.js';
