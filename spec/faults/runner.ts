// Runs one row of the table: a connection through a proxy of its own, the command under test with another one beside
// it and a third one that waits, the fault; then what became of each of them.

import { expect } from '@jest/globals';

import { NbdConnection, type NbdConnectionOptions, NbdError } from '../../lib/index.js';
import { caught } from '../support/caught.js';
import { type Fault, FaultProxy } from '../support/fault-proxy.js';
import { content } from '../support/golden.js';
import type { RealServer } from '../support/real-servers.js';
import type { Expected } from './cases.js';
import { type FaultCommand, OLD, SLOT, slotProblems } from './commands.js';
import { outcome, type Row } from './invariants.js';

/** A server whose export has the pattern at its start and free slots behind it. */
export class Ground implements AsyncDisposable {
  readonly server: RealServer;
  /** Straight to the server, for looking at what faults have done. */
  readonly #direct: NbdConnection;
  /** How its clients connect. */
  readonly options: NbdConnectionOptions;
  #slots = 0;

  private constructor(server: RealServer, direct: NbdConnection, options: NbdConnectionOptions) {
    this.server = server;
    this.#direct = direct;
    this.options = options;
  }

  static async prepare(server: RealServer, options: NbdConnectionOptions = {}): Promise<Ground> {
    const direct = await NbdConnection.connect(server.uri(), options);
    // The first slot holds the pattern, and is only read.
    await direct.pwrite(content(0, SLOT), 0);
    return new Ground(server, direct, options);
  }

  async slot(): Promise<number> {
    const offset = SLOT * (1 + this.#slots++);
    await this.#direct.pwrite(Buffer.alloc(SLOT, OLD), offset);
    return offset;
  }

  read(offset: number): Promise<Buffer> {
    return this.#direct.pread(SLOT, offset);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#direct.shutdown();
  }
}

export async function runCase(
  ground: Ground,
  command: FaultCommand,
  fault: Fault,
  { seen: expected, requestTimeout }: Expected,
  title: string,
): Promise<Row> {
  const slot = await ground.slot();
  await using proxy = await FaultProxy.start(ground.server.address);
  const connection = await NbdConnection.connect(proxy.target, {
    ...ground.options,
    ...{ metaContexts: ['base:allocation'], maxInFlight: 2, requestTimeout },
  });
  const problems: string[] = [];
  const closes: (NbdError | undefined)[] = [];
  connection.on('close', (error) => closes.push(error));

  proxy.link.arm(fault);
  const issued = command.issue(connection, slot);
  const own = outcome(issued.promise).then((ended) => {
    problems.push(...issued.settled(ended.word === 'ok'));
    return ended;
  });
  const beside = outcome(connection.pread(512, 4096));
  const raw = new RawCache(connection);

  const ends = { own: await own, beside: await beside, waiting: await outcome(raw.promise) };
  const then = await outcome(connection.pread(512, 0));
  if (!proxy.link.hasStruck) problems.push('the fault has not struck');
  const isAlive = connection.aioIsReady();
  const closed = closes.map((error) => error?.code ?? 'no error').join();
  const told = [
    `own ${ends.own.word}${kindOf(ends.own.error)}`,
    `beside ${ends.beside.word}`,
    `waiting ${ends.waiting.word}${sentOf(ends.waiting.error)}`,
    `then ${then.word}${kindOf(then.error)}`,
    isAlive
      ? 'ready'
      : `${connection.connectionState()}, close ${closes.length === 1 ? 'once' : closes.length} with ${closed}`,
  ];
  // Every command that the end has caught contains the reason.
  for (const { word, error } of [...Object.values(ends), then]) {
    const { cause, message } = (error ?? { message: '' }) as NbdError;
    if (word === 'ENOTCONN' && cause !== closes[0]) problems.push(`not with the cause of the end: ${message}`);
  }
  problems.push(...raw.problems());

  connection.close();
  connection.close();
  await proxy.link.gone;
  if (closes.length !== 1) problems.push(`${closes.length} close events`);
  problems.push(...(issued.problems?.() ?? []));
  problems.push(...slotProblems(command, await ground.read(slot), ends.own.word === 'ok'));
  return { title: `${command.name}: ${title}`, expected, seen: told.join('; '), problems };
}

const kindOf = (error: unknown): string => (error instanceof Error ? ` (${error.name})` : '');

const sentOf = (error: unknown): string => (error instanceof NbdError && error.sent === false ? ', not sent' : '');

/** A raw command, whose completion has to come once. */
class RawCache {
  readonly #connection: NbdConnection;
  readonly #cookie: bigint;
  readonly #told: (NbdError | null)[] = [];
  readonly promise: Promise<void>;

  constructor(connection: NbdConnection) {
    this.#connection = connection;
    let tell: (error: NbdError | null) => void = () => undefined;
    this.promise = new Promise((resolve, reject) => {
      tell = (error) => {
        if (error === null) resolve();
        else reject(error);
      };
    });
    this.#cookie = connection.aioCache(512, 0, (error) => {
      this.#told.push(error);
      tell(error);
    });
  }

  /** Its completion is called once, and it can be retired once. */
  problems(): string[] {
    const [error] = this.#told;
    try {
      expect(this.#told).toHaveLength(1);
      if (error === null) expect(this.#connection.aioCommandCompleted(this.#cookie)).toBe(true);
      else expect(caught(() => this.#connection.aioCommandCompleted(this.#cookie))).toBe(error);
      expect(this.#connection.aioCommandCompleted(this.#cookie)).toBe(false);
      return [];
    } catch (failure) {
      return [`the raw command: ${String(failure)}`];
    }
  }
}
