// Makes the connections of a pool, all with the same settings.

import { NbdConnection } from '../../client/node.js';
import { isAbsence, keepTrying } from '../../client/connect/waiting.js';
import { NbdConnectionError, NbdError } from '../../errors.js';
import { TLS_REQUIRE } from '../../protocol/client-constants.js';
import type { PoolSettings } from '../options.js';
import { messageOf, type PoolTarget } from './targets.js';

/** A connection that is ready, and what it leads to. */
export interface Opened {
  readonly connection: NbdConnection;
  readonly target: PoolTarget;
}

export class Opener {
  readonly targets: readonly PoolTarget[];
  readonly #settings: PoolSettings;
  /** The first connection was encrypted. Later ones must be too, or an attacker who cuts a connection could remove TLS. */
  #needsTls = false;
  #next = 0;

  constructor(targets: readonly PoolTarget[], settings: PoolSettings) {
    this.targets = targets;
    this.#settings = settings;
  }

  /** The first connection: each target in turn, and all again while `waitFor` lasts. */
  async first(): Promise<Opened> {
    const { waitFor, signal } = this.#settings;
    const isWaited = this.targets.every(({ isShared }) => isShared);
    const opened = await keepTrying(isWaited ? waitFor : 0, signal, () => this.#eachInTurn(signal));
    this.#needsTls = opened.connection.getTlsNegotiated();
    return opened;
  }

  /** The next target in turn. */
  next(signal: AbortSignal): Promise<Opened> {
    return this.#open(this.#turn(), signal);
  }

  /** One more connection to a target, within `growTimeout`. */
  another(target: PoolTarget, signal: AbortSignal): Promise<Opened> {
    return this.#open(target, signal, this.#settings.growTimeout);
  }

  #turn(): PoolTarget {
    const target = this.targets[this.#next++ % this.targets.length];
    return target as PoolTarget;
  }

  async #eachInTurn(signal: AbortSignal | undefined): Promise<Opened> {
    const failures: unknown[] = [];
    const described: string[] = [];
    for (const { description } of this.targets) {
      try {
        return await this.#open(this.#turn(), signal);
      } catch (error) {
        if (signal?.aborted === true) throw error;
        failures.push(error);
        described.push(`${description}: ${messageOf(error)}`);
      }
    }
    if (failures.length === 1) throw failures[0];
    // If any of them may come up yet, that is what the failure is about.
    const decisive = failures.find(isAbsence) ?? failures.at(-1);
    throw new NbdConnectionError(
      `NbdPool.connect: none of ${failures.length} targets could be connected to: ${described.join('; ')}`,
      {
        code: decisive instanceof NbdError ? decisive.code : 'ENOTCONN',
        syscall: 'connect',
        cause: new AggregateError(failures),
      },
    );
  }

  async #open(target: PoolTarget, signal: AbortSignal | undefined, timeout?: number): Promise<Opened> {
    const { connection: options } = this.#settings;
    const { connectTimeout = Infinity } = options;
    const connection = await NbdConnection.connect(target.target, {
      ...options,
      ...(timeout === undefined ? {} : { connectTimeout: Math.min(connectTimeout || Infinity, timeout) }),
      ...(this.#needsTls ? { tls: TLS_REQUIRE } : {}),
      ...(signal === undefined ? {} : { signal }),
    });
    // The server may have closed the connection right behind its last reply of the handshake.
    if (connection.aioIsReady()) return { connection, target };
    throw new NbdConnectionError(`connect to ${target.description}: the connection ended at once`, {
      code: 'ENOTCONN',
      syscall: 'connect',
    });
  }
}
