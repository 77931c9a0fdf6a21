// A fleet in Redis: its queue, its scripts, and connecting to both. Invariant: close() leaves no connection and no timer.

import { NbdConnectionError } from '../../errors.js';
import { type Engine, type EngineQueue, ignoreLateErrors, loadEngine, type RedisClient } from './engine.js';
import { Keys, prefixOf, QUEUE } from './keys.js';
import { SCRIPTS, type ScriptName } from './scripts.js';
import { isClient } from './target.js';

export interface StoreOptions {
  /** What BullMQ takes as `connection`. */
  readonly connection: object;
  readonly fleet: string;
  readonly syscall: string;
  /** Milliseconds until Redis must have answered the first time; 0: no limit. */
  readonly timeout: number;
  readonly signal: AbortSignal | undefined;
}

/** What is added to BullMQ's queue for each range. */
export interface QueuedRange {
  readonly jobId: string;
  readonly data: object;
}

/** BullMQ forgets what has ended: why a range failed is in the fleet's own dead letters. The worker decides when a range has failed for good, so that BullMQ never does. */
const ATTEMPTS = 999_999;
/** Milliseconds for the last command of a connection. */
const ANSWER_TIMEOUT = 1000;

export class Store {
  readonly engine: Engine;
  readonly queue: EngineQueue;
  readonly keys: Keys;
  readonly client: RedisClient;
  readonly #isShared: boolean;
  #isClosed = false;

  private constructor(engine: Engine, queue: EngineQueue, keys: Keys, client: RedisClient, isShared: boolean) {
    this.#isShared = isShared;
    this.engine = engine;
    this.queue = queue;
    this.keys = keys;
    this.client = client;
    for (const { name, lua } of SCRIPTS) client.defineCommand(`nbd:${name}`, { numberOfKeys: 1, lua });
  }

  /**
   * @throws NbdError `ENOTSUP` without BullMQ; NbdConnectionError `ETIMEDOUT` where Redis does not answer, with the last
   *   error as the cause. The signal's reason.
   */
  static async open({ connection, fleet, syscall, timeout, signal }: StoreOptions): Promise<Store> {
    const engine = await loadEngine(syscall);
    signal?.throwIfAborted();
    const queue = new engine.Queue(QUEUE, {
      connection,
      prefix: prefixOf(fleet),
      // Otherwise BullMQ keeps the times of the last 10,000 events of its queue in a stream.
      streams: { events: { maxLen: 100 } },
    });
    let last: Error | null = null;
    ignoreLateErrors(queue);
    queue.on('error', (error) => (last = error));
    try {
      const client = (await inTime(queue.client, timeout, signal, () => {
        const why = last === null ? 'no answer' : last.message;
        const message = `${syscall}: cannot connect to Redis within ${timeout} ms: ${why}`;
        return new NbdConnectionError(message, { code: 'ETIMEDOUT', syscall, cause: last ?? undefined });
      })) as RedisClient;
      return new Store(engine, queue, new Keys(fleet), client, isClient(connection));
    } catch (error) {
      // Its disconnect() would wait for a connection first.
      await queue.close().catch(() => undefined);
      throw error;
    }
  }

  /** Runs a script. */
  run(name: ScriptName, ...args: (string | number)[]): Promise<unknown> {
    const commands = this.client as unknown as Record<string, (...args: (string | number)[]) => Promise<unknown>>;
    return (commands[`nbd:${name}`] as (...args: (string | number)[]) => Promise<unknown>).call(
      this.client,
      this.keys.root,
      ...args,
    );
  }

  /** Adds ranges to the queue; those that are there already stay as they are. */
  async add(ranges: readonly QueuedRange[]): Promise<void> {
    if (ranges.length === 0) return;
    await this.queue.addBulk(
      ranges.map(({ jobId, data }) => ({
        name: 'range',
        data,
        opts: { jobId, attempts: ATTEMPTS, backoff: { type: 'custom' }, removeOnComplete: true, removeOnFail: true },
      })),
    );
  }

  /** Ends its connection; a client of the caller's own stays. What waits for an answer is rejected if Redis is away. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const closed = this.queue.close().catch(() => undefined);
    if (this.#isShared) return closed;
    // Redis answers a QUIT, unless it is away.
    if (this.client.status !== 'ready' || !(await isSoon(closed))) this.client.disconnect();
    await isSoon(closed);
  }
}

/** Whether a promise settles within a time in which Redis answers. */
export async function isSoon(promise: Promise<unknown>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), ANSWER_TIMEOUT);
  });
  const settled = promise.then(
    () => true,
    () => true,
  );
  return Promise.race([settled, late]).finally(() => clearTimeout(timer));
}

async function inTime<Value>(
  promise: Promise<Value>,
  timeout: number,
  signal: AbortSignal | undefined,
  late: () => Error,
): Promise<Value> {
  let timer: NodeJS.Timeout | undefined;
  let aborted = (): void => undefined;
  const ends = new Promise<never>((_resolve, reject) => {
    if (timeout > 0) timer = setTimeout(() => reject(late()), timeout);
    aborted = () => reject(signal?.reason as Error);
    signal?.addEventListener('abort', aborted, { once: true });
  });
  try {
    return await Promise.race([promise, ends]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', aborted);
  }
}
