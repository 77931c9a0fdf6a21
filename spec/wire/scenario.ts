// What a user does in a case: the words of the tables, as calls of our client. Reads go into the middle of a guarded
// buffer, writes come from one that is overwritten as soon as the call has settled.

import { type NbdConnection } from '../../lib/index.js';
import { pattern } from '../../lib/testing/index.js';
import { type OperationResult } from './notation.js';

const GUARD = 64;
const GUARD_BYTE = 0xee;

/** Runs a scenario; resolves with one result per call, after all have settled or the deadline has passed. */
export class Scenario {
  readonly results: OperationResult[] = [];
  readonly #client: NbdConnection;
  readonly #checks: (() => void)[] = [];
  readonly #zeroes: boolean;

  constructor(client: NbdConnection, zeroes: boolean) {
    this.#client = client;
    this.#zeroes = zeroes;
  }

  /** Runs one call of another kind, such as connecting. */
  async record(name: string, act: () => unknown): Promise<OperationResult> {
    const result: OperationResult = { name, status: 'pending', took: 0 };
    this.results.push(result);
    const start = performance.now();
    try {
      result.value = await act();
      result.status = 'resolved';
    } catch (error) {
      result.error = error;
      result.status = 'rejected';
    }
    result.took = performance.now() - start;
    return result;
  }

  /** Runs the words of a table, `R` among them. */
  async run(user: string): Promise<void> {
    const words = user.split(', ').flatMap((word) => (word === 'R' ? ['pread 512 0', 'pread 512 4096'] : [word]));
    for (const word of words) {
      if (word === 'pread2') {
        await Promise.all(['pread 512 0', 'pread 512 512'].map((read) => this.record(read, () => this.#call(read))));
      } else {
        await this.record(word, () => this.#call(word));
      }
    }
  }

  /** What must hold at the end: no byte of any buffer changed outside the request, nor after the call settled. */
  checkBuffers(): void {
    for (const check of this.#checks) check();
  }

  #call(word: string): unknown {
    const [verb = '', ...numbers] = word.split(' ');
    const [count = 0, offset = 0] = numbers.map(Number);
    const client = this.#client;
    switch (verb) {
      case 'pread':
        return this.#read(count, offset);
      case 'pwrite':
        return this.#write(count, offset);
      case 'trim':
        return client.trim(count, offset);
      case 'zero':
        return client.zero(count, offset);
      case 'cache':
        return client.cache(count, offset);
      case 'flush':
        return client.flush();
      case 'bs':
        return client.blockStatus(count, offset);
      case 'bs1':
        return client.blockStatus(count, offset, 8);
      case 'bs64':
        return client.blockStatus64(count, offset);
      case 'list':
        return client.optList();
      case 'lmeta':
        return client.optListMetaContextQueries([]);
      case 'info':
        return client.optInfo();
      case 'go':
        return client.optGo();
      case 'abort':
        return client.optAbort();
      case 'starttls':
        return client.optStarttls();
      case 'shutdown':
        return client.shutdown();
      case 'canmeta':
        return client.canMetaContext('base:allocation');
      case 'bsize':
        return [0, 1, 2, 3].map((type) => client.getBlockSize(type));
      case 'tls':
        return client.getTlsNegotiated();
      case 'size':
        return client.getSize();
      case 'eflags':
        return { df: client.canDf(), fastZero: client.canFastZero() };
      case 'wait':
        return new Promise((resolve) => setTimeout(resolve, count));
      default:
        throw new Error(`the scenario has no word ${word}`);
    }
  }

  async #read(count: number, offset: number): Promise<void> {
    const whole = Buffer.alloc(count + 2 * GUARD, GUARD_BYTE);
    const buffer = whole.subarray(GUARD, GUARD + count);
    let settled: Buffer | undefined;
    this.#checks.push(() => {
      const guards = Buffer.concat([whole.subarray(0, GUARD), whole.subarray(GUARD + count)]);
      if (guards.some((byte) => byte !== GUARD_BYTE))
        throw new Error(`bytes beside the buffer of pread ${count} ${offset} changed`);
      if (settled !== undefined && !settled.equals(buffer))
        throw new Error(`the buffer of pread ${count} ${offset} changed later`);
    });
    try {
      await this.#client.preadInto(buffer, offset);
    } finally {
      settled = Buffer.from(buffer);
    }
    const right = this.#zeroes ? Buffer.alloc(count) : pattern(offset, count);
    if (!right.equals(buffer)) throw new WrongData(`pread ${count} ${offset} resolved with wrong data`);
  }

  async #write(count: number, offset: number): Promise<void> {
    const bytes = Buffer.from(Uint8Array.from({ length: count }, (_, i) => (i * 13 + 5) & 255));
    try {
      await this.#client.pwrite(bytes, offset);
    } finally {
      bytes.fill(GUARD_BYTE);
    }
  }
}

/** A read resolved with what the server did not send: never allowed, whatever the table expects. */
export class WrongData extends Error {}
