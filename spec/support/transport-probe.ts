// Specs of transports: a receiver that records its calls, and what is left behind when all is over.

import { readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';

import { type Receiver } from '../../lib/transport/transport.js';

/** Keeps the bytes, and how the transport ended. */
export class Probe implements Receiver {
  readonly #chunks: Buffer[] = [];
  readonly #target = Buffer.alloc(4096);
  #wake: (() => void) | null = null;
  length = 0;
  hasEnded = false;
  /** The argument of close(); undefined until it is called. */
  closedWith: Error | null | undefined;

  get text(): string {
    return Buffer.concat(this.#chunks).toString();
  }

  target(): Uint8Array {
    return this.#target;
  }

  advance(length: number): void {
    this.push(this.#target.subarray(0, length));
  }

  push(chunk: Uint8Array): void {
    this.#chunks.push(Buffer.from(chunk));
    this.length += chunk.length;
    this.#wake?.();
  }

  end(): void {
    this.hasEnded = true;
    this.#wake?.();
  }

  close(error: Error | null): void {
    this.closedWith = error;
    this.#wake?.();
  }

  /** Resolves once `condition` holds; checked whenever something has happened. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      await new Promise<void>((resolve) => (this.#wake = resolve));
      this.#wake = null;
    }
  }

  async closed(): Promise<Error | null> {
    await this.until(() => this.closedWith !== undefined);
    return this.closedWith ?? null;
  }
}

const foldersNow = (): string[] => readdirSync(tmpdir()).filter((name) => name.startsWith(`nbd-${process.pid}-`));
/** An earlier process with the same number may have been killed and have left its own. */
const FOREIGN = new Set(foldersNow());

/** Folders that this process's private sockets live in. */
export const privateFolders = (): string[] => foldersNow().filter((name) => !FOREIGN.has(name));

/** Descriptors of this process; -1 where the system does not list them. */
function openDescriptors(): number {
  try {
    return readdirSync('/proc/self/fd').length;
  } catch {
    return -1;
  }
}

interface Held {
  readonly descriptors: number;
  readonly listeners: number;
}

/** What a started program costs this process. */
export const held = (): Held => ({ descriptors: openDescriptors(), listeners: process.listenerCount('exit') });

/** What is held beyond what was before, once it had time to go. */
export async function stillHeld(before: Held): Promise<Held> {
  const more = (): Held => {
    const now = held();
    return {
      descriptors: Math.max(now.descriptors - before.descriptors, 0),
      listeners: Math.max(now.listeners - before.listeners, 0),
    };
  };
  for (let tries = 0; tries < 3000 && more().descriptors + more().listeners > 0; tries++) await sleep(20);
  return more();
}

/** Whether a process is there and not just waiting to be reaped. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
