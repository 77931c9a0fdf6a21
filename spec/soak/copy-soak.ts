// `nbd copy --checkpoint`, killed at random moments and run again: SIGKILL of the process, of the source's server, of the
// destination's server, whose cache loses what was not flushed, or of several at once. In the end both ends are equal,
// and no death has cost more reads than one checkpoint's worth. Reads are counted by nbdkit's log of the source: what is
// read again is the cost of the first death since it was read before, and without a death nothing is read again.

import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

import type { Random } from '../fuzz/random.js';
import { type RealServer, runTool, startNbdkit, startQemuNbd } from '../support/real-servers.js';

const MIB = 1 << 20;
/** `nbd copy` saves a checkpoint of so small an export after this many bytes at the latest. */
const EVERY = 16 * MIB;
/** Reads are counted in these units, of which every request is made. */
const UNIT = 512;
/** A copy that is not killed any more has to end by itself. */
const MOST_RUNS = 100;
/** Milliseconds for a server to see that a client is dead; it takes a few. */
const LONGEST_LEAVING = 30_000;

export interface CopySoakOptions {
  readonly random: Random;
  /** The command line: its main.js. */
  readonly cli: string;
  /** Ends after this many kills, or when the time is over. */
  readonly kills: number;
  readonly until: number;
  /** MiB of the largest export. */
  readonly largest?: number;
  readonly onCopy?: (line: string) => void;
}

export interface CopySoakCounts {
  copies: number;
  runs: number;
  /** Moments at which something was killed; servers that ended by themselves are not among them. */
  kills: number;
  /** Kills by what was killed: `process`, `source`, `destination` and their combinations. */
  readonly killed: Record<string, number>;
  /** Times that a server ended by itself. */
  crashes: number;
  /** Bytes of data in the sources, and bytes read. */
  data: number;
  read: number;
  /** The most bytes that were read again because of one death, and that as a share of one checkpoint's worth. */
  mostAgain: number;
  worst: number;
}

type Victim = 'process' | 'source' | 'destination';

/**
 * A server that can be killed and started again where it was. One that ends by itself is started again: nbdkit 1.32 aborts
 * (`raw_send_socket: Assertion sock >= 0`) where a client dies while it is being answered.
 */
class Place {
  readonly #start: () => Promise<RealServer>;
  readonly #onCrash: (why: string) => Promise<void>;
  #server: RealServer | null = null;
  /** What has been asked of it is done one after the other. */
  #turn: Promise<void> = Promise.resolve();

  /** `onCrash` is called before the server is started again. */
  constructor(start: () => Promise<RealServer>, onCrash: (why: string) => Promise<void>) {
    this.#start = start;
    this.#onCrash = onCrash;
  }

  start(): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#server !== null) return;
      const server = await this.#start();
      this.#server = server;
      // What it rejects with is a difference in the log, which the next look at it reports as well.
      void server.ended.then(() => this.#ended(server)).catch(() => undefined);
    });
  }

  get isRunning(): boolean {
    return this.#server !== null;
  }

  kill(): Promise<void> {
    return this.#inTurn(() => this.#remove());
  }

  #inTurn(act: () => Promise<void>): Promise<void> {
    this.#turn = this.#turn.catch(() => undefined).then(act);
    return this.#turn;
  }

  async #remove(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    if (server === null) return;
    server.kill('SIGKILL');
    await server.ended;
    await server.stop();
    if (server.socketPath !== undefined) await rm(server.socketPath, { force: true });
  }

  async #ended(server: RealServer): Promise<void> {
    if (this.#server !== server) return;
    const why = `${server.name} ended by itself (${String(await server.endedBy(0))}): ${server.log()}`;
    await this.#inTurn(async () => {
      if (this.#server !== server) return;
      await this.#remove();
      await this.#onCrash(why);
    });
    await this.start();
  }
}

/** One copy, from its first run to the last. */
class KilledCopy {
  readonly #options: CopySoakOptions;
  readonly #counts: CopySoakCounts;
  readonly #folder: string;
  readonly #size: number;
  readonly #isQcow2: boolean;
  readonly #source: Place;
  readonly #destination: Place;
  /** For each unit of the source, how many deaths there had been when it was last read, plus 1; 0: not read yet. */
  readonly #reads: Uint16Array;
  /** Bytes that were read again because of each death. */
  readonly #costs: number[] = [];
  #counting: Promise<void> = Promise.resolve();
  #logged = 0;
  #kills = 0;
  #crashes = 0;
  #read = 0;
  /** Bytes that were read once at least. */
  #distinct = 0;

  constructor(options: CopySoakOptions, counts: CopySoakCounts, folder: string) {
    const { random } = options;
    this.#options = options;
    this.#counts = counts;
    this.#folder = folder;
    const largest = (options.largest ?? 96) * MIB;
    this.#isQcow2 = random.oneIn(3);
    const size = random.between(largest / 4, largest);
    this.#size = this.#isQcow2 ? size - (size % UNIT) : size;
    this.#reads = new Uint16Array(Math.ceil(this.#size / UNIT));
    const onCrash = async (why: string): Promise<void> => {
      this.#crashes++;
      counts.crashes++;
      options.onCopy?.(why.trim());
      await this.#died();
    };
    const source = (): Promise<RealServer> =>
      startNbdkit({
        ...{ socketPath: this.#at('source'), plugin: 'file', filters: ['log'] },
        args: [this.#at('from'), `logfile=${this.#at('log')}`, 'logappend=true'],
      });
    const destination = (): Promise<RealServer> =>
      this.#isQcow2
        ? startQemuNbd({
            ...{ socketPath: this.#at('destination'), file: this.#at('to'), format: 'qcow2' },
            args: ['--cache=writeback', '--discard=unmap'],
          })
        : // One thread, for the reason that pool-soak.ts gives.
          startNbdkit({
            ...{ socketPath: this.#at('destination'), plugin: 'file', options: ['-t1'], filters: ['cache'] },
            args: [this.#at('to'), 'cache=writeback'],
          });
    this.#source = new Place(source, onCrash);
    this.#destination = new Place(destination, onCrash);
  }

  #at(name: string): string {
    return join(this.#folder, name);
  }

  async run(kills: number): Promise<void> {
    const { random } = this.#options;
    const data = await this.#makeEnds();
    let runs = 0;
    try {
      for (;;) {
        if (++runs > MOST_RUNS) throw new Error(`the copy is not complete after ${MOST_RUNS} runs`);
        await this.#source.start();
        await this.#destination.start();
        const isKilled = this.#kills < kills && performance.now() < this.#options.until;
        const crashes = this.#crashes;
        const code = await this.#runOnce(isKilled, random.oneIn(2));
        await this.#countReads();
        if (code === 0 || (code === 'SIGKILL' && this.#isRemoved())) break;
        if (!isKilled && this.#crashes === crashes) {
          throw new Error(`nbd copy ended with ${code}, and nothing was killed`);
        }
      }
      // What the exit code 0 has promised needs no server's memory.
      await this.#destination.kill();
      await this.#compare();
      if (existsSync(this.#at('checkpoint'))) throw new Error('the checkpoint of a complete copy is still there');
    } finally {
      await this.#source.kill();
      await this.#destination.kill();
    }
    const counts = this.#counts;
    counts.copies++;
    counts.runs += runs;
    counts.kills += this.#kills;
    counts.data += data;
    counts.read += this.#read;
    counts.mostAgain = Math.max(counts.mostAgain, ...this.#costs);
    counts.worst = counts.mostAgain / EVERY;
    this.#options.onCopy?.(
      `${this.#isQcow2 ? 'qcow2' : 'raw'}, ${this.#size} bytes, ${runs} runs, ${this.#kills} kills, ` +
        `read again after each death: ${this.#costs.join(', ') || 'no'} bytes (at most ${EVERY})`,
    );
  }

  /**
   * The checkpoint is gone, although more has been read than may be without one: the process was killed when the copy was
   * complete and it had removed it, on its way to the exit code 0. It has to be as good as that.
   */
  #isRemoved(): boolean {
    return this.#distinct > EVERY && !existsSync(this.#at('checkpoint'));
  }

  /** Sparse, of random lengths; returns the bytes that are not holes. */
  async #makeEnds(): Promise<number> {
    const { random } = this.#options;
    const file = await open(this.#at('from'), 'w');
    let data = 0;
    try {
      await file.truncate(this.#size);
      for (let at = 0; at < this.#size;) {
        const length = Math.min(
          random.pick([4096, 65_536, MIB, 5 * MIB]) + random.pick([0, 0, 512, 4097]),
          this.#size - at,
        );
        if (!random.oneIn(4)) {
          const bytes = Buffer.alloc(length, random.between(1, 255));
          for (let word = 0; word + 4 <= length; word += 512) bytes.writeUInt32LE(at + word, word);
          await file.write(bytes, 0, length, at);
          data += length;
        }
        at += length;
      }
    } finally {
      await file.close();
    }
    if (this.#isQcow2) await tool('qemu-img', 'create', '-q', '-f', 'qcow2', this.#at('to'), String(this.#size));
    else await writeFile(this.#at('to'), Buffer.alloc(this.#size, 0xaa));
    return data;
  }

  /** One run of the command, which is killed as often as may be, or never; resolves with its exit code or signal. */
  async #runOnce(isKilled: boolean, reconnects: boolean): Promise<number | string> {
    const { random, cli } = this.#options;
    const uri = (name: string): string => `nbd+unix:///?socket=${this.#at(name)}`;
    const child = spawn(
      process.execPath,
      [
        ...[cli, 'copy', '--progress=1', `--checkpoint=${this.#at('checkpoint')}`],
        ...[`--rate=${random.between(30, 120)}M`, `--connections=${random.pick([1, 4])}`],
        ...(reconnects ? ['--reconnect=60'] : []),
        ...[uri('source'), uri('destination')],
      ],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    );
    let said = '';
    let failure = '';
    child.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => (failure += chunk.toString()));
    const ended = new Promise<number | string>((resolve) => {
      child.once('close', (code, signal) => resolve(code ?? signal ?? 'nothing'));
    });
    const isOver = (): boolean => child.exitCode !== null || child.signalCode !== null;
    if (isKilled) {
      // The first bytes, or the end of a run that failed before.
      while (said === '' && !isOver()) await sleep(5);
      await this.#killSome(child, isOver, reconnects);
    }
    const code = await ended;
    if (code !== 0 && code !== 1 && code !== 'SIGKILL') throw new Error(`nbd copy ended with ${code}: ${failure}`);
    if (code === 1) {
      if (!isKilled) this.#options.onCopy?.(`exit code 1: ${failure}`);
      await this.#endedByDeath();
    }
    return code;
  }

  /** What is dead is not started again before this has resolved: what is read from then on is read after the death. */
  async #died(): Promise<void> {
    await this.#countReads();
    this.#costs.push(0);
  }

  async #killSome(child: ChildProcess, isOver: () => boolean, reconnects: boolean): Promise<void> {
    const { random } = this.#options;
    const few: Victim[][] = [
      ['process'],
      ['source'],
      ['destination'],
      ['destination', 'process'],
      ['source', 'destination'],
    ];
    for (let left = reconnects ? random.between(1, 3) : 1; left > 0; left--) {
      const victims = random.pick(few);
      await sleep(random.below(1000));
      if (isOver()) return;
      const what = victims.join(' and ');
      this.#kills++;
      this.#counts.killed[what] = (this.#counts.killed[what] ?? 0) + 1;
      // Those that die together do so in one turn.
      if (victims.includes('process')) child.kill('SIGKILL');
      await Promise.all([
        victims.includes('source') ? this.#source.kill() : null,
        victims.includes('destination') ? this.#destination.kill() : null,
      ]);
      if (victims.includes('process')) await this.#allLeft();
      await this.#died();
      if (victims.includes('process') || !reconnects) return;
      await sleep(random.below(300));
      await this.#source.start();
      await this.#destination.start();
    }
  }

  /** The process has ended because a server did. What it has read meanwhile is lost by the same death. */
  async #endedByDeath(): Promise<void> {
    await this.#allLeft();
    await this.#countReads();
    const deaths = this.#costs.length;
    for (const [unit, epoch] of this.#reads.entries()) if (epoch === deaths + 1) this.#reads[unit] = deaths;
  }

  /** The source's server has nothing left to do for a process that was killed, or is gone. */
  async #allLeft(): Promise<void> {
    const begun = performance.now();
    for (;;) {
      const log = await this.#log();
      const last = log.slice(log.lastIndexOf(' Ready '));
      const count = (what: string): number => last.split(` ${what} `).length - 1;
      if (count('Connect') <= count('Disconnect') || !this.#source.isRunning) return;
      if (performance.now() - begun > LONGEST_LEAVING)
        throw new Error('the source still serves a process that is dead');
      await sleep(5);
    }
  }

  #log(): Promise<string> {
    return readFile(this.#at('log'), 'latin1');
  }

  /** What the source's log has more since the last time. */
  #countReads(): Promise<void> {
    this.#counting = this.#counting.then(async () => {
      const start = this.#logged;
      let end = start;
      const text = (await this.#log()).slice(start);
      // A server that is killed may leave half a line.
      for (const match of text.matchAll(/ Read id=\d+ offset=(0x[0-9a-f]+) count=(0x[0-9a-f]+) /g)) {
        this.#countRead(Number(match[1]), Number(match[2]));
        end = start + match.index + match[0].length;
      }
      this.#logged = end;
    });
    return this.#counting;
  }

  #countRead(offset: number, count: number): void {
    const deaths = this.#costs.length;
    this.#read += count;
    for (let at = offset; at < offset + count; at += UNIT) {
      const unit = Math.floor(at / UNIT);
      const before = this.#reads[unit] ?? 0;
      this.#reads[unit] = deaths + 1;
      if (before === 0) {
        this.#distinct += Math.min(UNIT, offset + count - at);
        continue;
      }
      if (before === deaths + 1) throw new Error(`offset ${at} was read twice, and nothing had died in between`);
      const cost = (this.#costs[before - 1] ?? 0) + Math.min(UNIT, offset + count - at);
      this.#costs[before - 1] = cost;
      if (cost > EVERY) throw new Error(`${cost} bytes were read again because of one death, ${EVERY} at most`);
    }
  }

  async #compare(): Promise<void> {
    const format = this.#isQcow2 ? 'qcow2' : 'raw';
    await tool('qemu-img', 'compare', '-f', 'raw', '-F', format, this.#at('from'), this.#at('to'));
  }
}

async function tool(name: string, ...args: string[]): Promise<void> {
  const { code, stdout, stderr } = await runTool(name, args);
  if (code !== 0) throw new Error(`${name} ${args.join(' ')}: ${stdout}${stderr}`);
}

/** Runs one soak; resolves with what was counted, rejects at the first difference. */
export async function soakCopy(options: CopySoakOptions): Promise<CopySoakCounts> {
  const counts: CopySoakCounts = {
    copies: 0,
    runs: 0,
    kills: 0,
    killed: {},
    crashes: 0,
    data: 0,
    read: 0,
    mostAgain: 0,
    worst: 0,
  };
  while (counts.kills < options.kills && (counts.copies === 0 || performance.now() < options.until)) {
    const folder = await mkdtemp(join(tmpdir(), 'nbd-copy-soak-'));
    try {
      const copy = new KilledCopy(options, counts, folder);
      await copy.run(Math.min(options.kills - counts.kills, options.random.between(3, 12)));
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }
  return counts;
}
