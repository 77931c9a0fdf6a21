// Two real servers with files behind them, a source and a destination, and what specs of fleets do with them.

import { createCipheriv } from 'node:crypto';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import type { FleetJob, WorkOptions } from '../../lib/fleet/index.js';
import { freePort, type RealServer, startNbdkit, startQemuNbd } from '../support/real-servers.js';

export const MIB = 2 ** 20;

/** Short enough for a spec, and long enough for a machine that is busy. */
export const LEASE = 2500;
export const FAST: WorkOptions = {
  lease: LEASE,
  untilSettled: true,
  backoff: { delay: 200, maxDelay: 1000 },
  connection: { reconnect: { within: 1000 }, growTimeout: 1000, closeTimeout: 1000 },
};

export interface SiteOptions {
  readonly seed: number;
  /** Bytes; default 4 MiB. */
  readonly size?: number;
  /** Default nbdkit. */
  readonly destination?: 'nbdkit' | 'qemu-nbd';
  /** Arguments of the destination's nbdkit: filters and their parameters. */
  readonly filters?: readonly string[];
  readonly args?: readonly string[];
  readonly readOnly?: boolean;
}

export class Site implements AsyncDisposable {
  readonly data: Buffer;
  readonly folder: string;
  readonly #options: SiteOptions;
  readonly #port: number;
  #source: RealServer | null = null;
  #destination: RealServer | null = null;

  private constructor(options: SiteOptions, folder: string, port: number) {
    this.#options = options;
    this.folder = folder;
    this.#port = port;
    const { size = 4 * MIB, seed } = options;
    this.data = bytesOf(seed, size);
    // A part of it are holes.
    this.data.fill(0, size / 4, size / 2);
  }

  static async make(options: SiteOptions): Promise<Site> {
    const site = new Site(options, await mkdtemp(join(tmpdir(), 'nbd-fleet-')), await freePort());
    await writeSparse(site.sourceFile, site.data);
    await writeFile(site.destinationFile, bytesOf(options.seed + 1, site.data.length));
    site.#source = await startNbdkit({ plugin: 'file', options: ['-r'], args: [site.sourceFile] });
    await site.startDestination();
    return site;
  }

  get sourceFile(): string {
    return join(this.folder, 'source');
  }

  get destinationFile(): string {
    return join(this.folder, 'destination');
  }

  get destination(): RealServer {
    if (this.#destination === null) throw new Error('there is no destination');
    return this.#destination;
  }

  /** Starts the destination where it was, or the first time. */
  async startDestination(options: Partial<SiteOptions> = {}): Promise<void> {
    const { destination = 'nbdkit', filters = [], args = [], readOnly = false } = { ...this.#options, ...options };
    this.#destination =
      destination === 'nbdkit'
        ? await startNbdkit({
            ...{ plugin: 'file', filters, port: this.#port },
            options: readOnly ? ['-r'] : [],
            args: [this.destinationFile, ...args],
          })
        : await startQemuNbd({ file: this.destinationFile, port: this.#port, args: ['--cache=writeback'] });
  }

  /** Kills the destination. */
  async killDestination(): Promise<void> {
    this.destination.kill('SIGKILL');
    await this.destination.stop();
  }

  job(options: Partial<FleetJob> = {}): FleetJob {
    return {
      kind: 'copy',
      source: this.#source?.uri() ?? '',
      destination: `nbd://127.0.0.1:${this.#port}`,
      rangeSize: MIB,
      ...options,
    };
  }

  /** Whether the destination has the source's bytes. */
  async isEqual(): Promise<boolean> {
    return (await readFile(this.destinationFile)).equals(this.data);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#source?.stop();
    await this.#destination?.stop();
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** Bytes that depend on the seed alone, at the speed of a cipher. */
function bytesOf(seed: number, length: number): Buffer {
  const key = Buffer.alloc(16);
  key.writeUInt32LE(seed >>> 0);
  return createCipheriv('aes-128-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(length));
}

/** What is zero in the second quarter of it is a hole in the file. */
async function writeSparse(path: string, data: Buffer): Promise<void> {
  const file = await open(path, 'w');
  await file.truncate(data.length);
  await file.write(data, 0, data.length / 4, 0);
  await file.write(data, data.length / 2, data.length / 2, data.length / 2);
  await file.close();
}
