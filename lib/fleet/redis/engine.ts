// BullMQ, which is loaded when it is needed and not before: a program without fleets need not have it. What is used of
// it is described here, so that the declarations of this package do not need its types.

import { NbdError } from '../../errors.js';

/** A Redis client as ioredis has it, as far as it is used here. */
export interface RedisClient {
  readonly status: string;
  disconnect(): void;
  defineCommand(name: string, definition: { numberOfKeys: number; lua: string }): void;
  hgetall(key: string): Promise<Record<string, string>>;
  hget(key: string, field: string): Promise<string | null>;
  hmget(key: string, ...fields: string[]): Promise<(string | null)[]>;
  hset(key: string, ...fields: (string | number)[]): Promise<number>;
  hsetnx(key: string, field: string, value: string | number): Promise<number>;
  hdel(key: string, ...fields: string[]): Promise<number>;
  hvals(key: string): Promise<string[]>;
  get(key: string): Promise<string | null>;
  getBuffer(key: string): Promise<Buffer | null>;
  del(...keys: string[]): Promise<number>;
  zrange(key: string, start: number, stop: number): Promise<string[]>;
  zcount(key: string, minimum: number, maximum: number | string): Promise<number>;
  smembers(key: string): Promise<string[]>;
  scan(cursor: string, ...options: (string | number)[]): Promise<[string, string[]]>;
  time(): Promise<[string, string]>;
  info(section?: string): Promise<string>;
  on(event: string, listener: (...args: never[]) => void): unknown;
  off(event: string, listener: (...args: never[]) => void): unknown;
}

/** Job options that are used. */
export interface EngineJobOptions {
  jobId?: string;
  attempts?: number;
  backoff?: { type: string };
  removeOnComplete?: boolean;
  removeOnFail?: boolean;
}

export interface EngineQueue {
  readonly client: Promise<unknown>;
  addBulk(jobs: { name: string; data: unknown; opts: EngineJobOptions }[]): Promise<unknown[]>;
  pause(): Promise<void>;
  resume(): Promise<void>;
  isPaused(): Promise<boolean>;
  drain(delayed?: boolean): Promise<void>;
  obliterate(options: { force: boolean; count?: number }): Promise<void>;
  close(): Promise<void>;
  on(event: 'error', listener: (error: Error) => void): unknown;
}

export interface EngineJob {
  readonly id?: string | undefined;
  readonly data: unknown;
  readonly attemptsMade: number;
  extendLock(token: string, duration: number): Promise<number>;
  moveToDelayed(timestamp: number, token?: string): Promise<void>;
  moveToWait(token?: string): Promise<unknown>;
}

export interface EngineWorker {
  run(): Promise<void>;
  pause(doNotWaitActive?: boolean): Promise<void>;
  close(force?: boolean): Promise<void>;
  on(event: 'error', listener: (error: Error) => void): unknown;
}

/** What of the module `bullmq` is used. */
export interface Engine {
  readonly Queue: new (name: string, options: object) => EngineQueue;
  readonly Worker: new (
    name: string,
    processor: (job: EngineJob, token?: string) => Promise<unknown>,
    options: object,
  ) => EngineWorker;
  readonly UnrecoverableError: new (message: string) => Error;
  readonly DelayedError: new (message?: string) => Error;
  readonly WaitingError: new (message?: string) => Error;
}

let loading: Promise<Engine> | null = null;

/** @throws NbdError `ENOTSUP` where BullMQ is not installed. */
export function loadEngine(syscall: string): Promise<Engine> {
  loading ??= import('bullmq').then((module) => module as unknown as Engine);
  return loading.catch((cause: unknown) => {
    loading = null;
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new NbdError(
      `${syscall}: nbd-sdk/fleet needs the package bullmq, which cannot be loaded; install it with: npm install bullmq (${why})`,
      { code: 'ENOTSUP', syscall, cause },
    );
  });
}

interface Emitter {
  on(event: 'error', listener: () => void): unknown;
  removeAllListeners(...names: unknown[]): unknown;
}

/**
 * For a queue or a worker that may be closed while it connects. BullMQ's connections remove their own listeners when
 * they are closed, and report afterwards, as an 'error' event, that they could not connect: an unhandled rejection.
 */
export function ignoreLateErrors(part: object): void {
  const { connection, blockingConnection } = part as { connection?: Emitter; blockingConnection?: Emitter };
  for (const each of [connection, blockingConnection]) {
    if (each === undefined) continue;
    const remove = each.removeAllListeners.bind(each);
    each.removeAllListeners = (...names) => {
      remove(...names);
      return each.on('error', () => undefined);
    };
  }
}
