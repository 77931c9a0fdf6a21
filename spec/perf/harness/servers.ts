// The servers of the rows: nbdkit, or the embedded server in a process of its own without nbdkit. Started
// when first needed, stopped together at the end.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Certificates, makeCertificates } from '../../support/certificates.js';
import { hasTool, type NbdkitOptions, runTool, startNbdkit } from '../../support/real-servers.js';
import { Gap } from './measure.js';
import { EXTENT, IMAGE, type Row } from './rows.js';
import { type Workshop } from './workshop.js';

export interface BenchServer {
  readonly name: string;
  readonly uri: string;
  stop(): Promise<void>;
}

type Wanted = Pick<Row, 'server' | 'transport' | 'replies' | 'tls' | 'extents'>;

export class Servers {
  readonly #workshop: Workshop;
  readonly #running = new Map<string, Promise<BenchServer>>();
  #certificates: Promise<Certificates> | undefined;

  constructor(workshop: Workshop) {
    this.#workshop = workshop;
  }

  /** The server for a row; the same one every time. */
  get(wanted: Wanted): Promise<BenchServer> {
    const { server, transport, replies, tls, extents } = wanted;
    const key = [server, transport, replies === 'no-sr', tls, extents].join();
    let starting = this.#running.get(key);
    if (starting === undefined) {
      starting = this.#start(wanted);
      this.#running.set(key, starting);
    }
    return starting;
  }

  async stop(): Promise<void> {
    const results = await Promise.allSettled(this.#running.values());
    for (const result of results) if (result.status === 'fulfilled') await result.value.stop();
    await (await this.#certificates)?.remove();
  }

  async #start(wanted: Wanted): Promise<BenchServer> {
    if (wanted.server === 'burst' || (wanted.server === 'extents' && !hasTool('nbdkit'))) {
      return startProgram(this.#workshop, 'extents-server', wanted);
    }
    if (!hasTool('nbdkit')) return startProgram(this.#workshop, 'server', wanted);
    const tls = wanted.tls ? await (this.#certificates ??= makeCertificates()) : undefined;
    const server = await startNbdkit({
      transport: wanted.transport,
      ...(wanted.replies === 'no-sr' ? { options: ['--no-sr'] } : {}),
      ...(await this.#contents(wanted)),
      ...(tls === undefined ? {} : { tls: { folder: tls.folder, mode: 'on' } }),
    });
    const plain = server.uri().replace(/^nbds/, 'nbd');
    if (wanted.server === 'pattern') await fill(this.#workshop, plain);
    const uri = tls === undefined ? plain : `${server.uri()}?tls-certificates=${tls.folder}`;
    return { name: 'nbdkit', uri, stop: () => server.stop() };
  }

  async #contents({ server, extents = 0 }: Wanted): Promise<NbdkitOptions> {
    if (server === 'null') return { plugin: 'null', args: [String(IMAGE)] };
    if (server !== 'extents') return { plugin: 'memory', args: [String(IMAGE)] };
    const file = join(this.#workshop.folder, `extents-${extents}`);
    await writeFile(file, extentList(extents));
    return {
      plugin: 'null',
      filters: ['extentlist'],
      args: [String(extents * EXTENT), `extentlist=${file}`],
    };
  }
}

/** Data and holes in turn, in the words of nbdkit's extentlist filter. */
function extentList(count: number): string {
  const lines: string[] = [];
  for (let i = 0; i < count; i++) lines.push(`${i * EXTENT} ${EXTENT}${i % 2 === 0 ? '' : ' hole,zero'}\n`);
  return lines.join('');
}

/** The pattern is written by our own client; every program checks it. */
async function fill(workshop: Workshop, uri: string): Promise<void> {
  const args = [workshop.program('fill'), uri, String(IMAGE)];
  const { code, stderr } = await runTool(process.execPath, args);
  if (code !== 0) throw new Error(`the image could not be written: ${stderr}`);
}

/** A server of spec/perf/programs. */
async function startProgram(
  workshop: Workshop,
  program: 'server' | 'extents-server',
  wanted: Wanted,
): Promise<BenchServer> {
  if (wanted.tls) throw new Gap('TLS needs nbdkit');
  const child = spawn(process.execPath, [workshop.program(program), JSON.stringify(wanted)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = once(child, 'exit');
  const [line] = (await Promise.race([once(child.stdout, 'data'), ended])) as [unknown];
  if (!Buffer.isBuffer(line)) throw new Error(`${program} ended with code ${String(line)}`);
  return {
    name: program === 'server' ? 'nbd-sdk/server' : 'own',
    uri: line.toString().trim(),
    stop: async () => {
      child.stdin.end();
      await ended;
    },
  };
}
