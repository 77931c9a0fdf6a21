// The embedded server for clients that were not written for it: servers and a folder that last for one test, the
// clients' programs, and contents to copy.

import { afterEach, beforeEach, expect } from '@jest/globals';
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NbdServer, type NbdServerOptions } from '../../lib/server/index.js';
import { randomNumbers } from '../support/deliver.js';
import { content } from '../support/golden.js';
import { runTool } from '../support/real-servers.js';

export const MiB = 1 << 20;

let folder: string;
const servers: NbdServer[] = [];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-interop-'));
});
afterEach(async () => {
  await Promise.all(servers.splice(0).map((server) => server.close()));
  await rm(folder, { recursive: true, force: true });
});

/** A path in a folder that each test has for itself. */
export const inFolder = (name: string): string => join(folder, name);

let sockets = 0;
export function make(options: NbdServerOptions): NbdServer {
  const server = new NbdServer({ closeTimeout: 500, ...options });
  servers.push(server);
  return server;
}

export const serve = (options: NbdServerOptions): Promise<NbdServer> =>
  make(options).listenUnix(inFolder(`socket${(sockets += 1)}`));

/** Runs a program that must succeed, and returns its output. */
export async function run(name: string, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await runTool(name, args);
  expect({ name, args, code, stderr: code === 0 ? '' : stderr }).toEqual({ name, args, code: 0, stderr: '' });
  return stdout;
}

export const sha = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** Some data, some long runs of zeroes. */
export function sparseContents(length: number, seed = 7): Buffer {
  const bytes = Buffer.alloc(length);
  const next = randomNumbers(seed);
  for (let at = 0; at < length; at += 65536) {
    if (next() < 0.5) content(Math.floor(next() * length), Math.min(65536, length - at)).copy(bytes, at);
  }
  return bytes;
}
