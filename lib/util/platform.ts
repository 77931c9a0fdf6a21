// What the runtime offers beyond the interfaces of the web. The entry `nbd-sdk/web` also runs in browsers, where none of
// this exists: so Node's modules are looked up when they are there, instead of imported.

import type * as buffer from 'node:buffer';
import type * as crypto from 'node:crypto';
import type * as diagnostics_channel from 'node:diagnostics_channel';
import type * as os from 'node:os';
import type * as timers from 'node:timers';
import type * as tls from 'node:tls';
import type * as util from 'node:util';
import type * as worker_threads from 'node:worker_threads';

/** Node's `process`, or what a bundler or a page has put in its place. */
interface ProcessParts {
  readonly getBuiltinModule?: unknown;
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly nextTick?: unknown;
  readonly emitWarning?: unknown;
  readonly platform?: string;
  readonly versions?: Readonly<Record<string, string | undefined>>;
  readonly stderr?: { readonly write?: unknown };
}

const processParts = (): ProcessParts | undefined =>
  (globalThis as { readonly process?: ProcessParts | undefined }).process;

/** The modules of Node that are used where they exist. */
interface NodeModules {
  readonly 'node:buffer': typeof buffer;
  readonly 'node:crypto': typeof crypto;
  readonly 'node:diagnostics_channel': typeof diagnostics_channel;
  readonly 'node:os': typeof os;
  readonly 'node:timers': typeof timers;
  readonly 'node:tls': typeof tls;
  readonly 'node:util': typeof util;
  readonly 'node:worker_threads': typeof worker_threads;
}

/** A module of Node; undefined in browsers. Node, Bun and Deno have `process.getBuiltinModule`. */
export function nodeModule<Name extends keyof NodeModules>(name: Name): NodeModules[Name] | undefined {
  const parts = processParts();
  if (typeof parts?.getBuiltinModule !== 'function') return undefined;
  return (parts.getBuiltinModule as (name: Name) => NodeModules[Name] | undefined)(name);
}

// jest-environment-jsdom has neither as a global.
const coding = globalThis as {
  readonly TextDecoder?: typeof util.TextDecoder;
  readonly TextEncoder?: typeof util.TextEncoder;
};
const coders =
  coding.TextDecoder === undefined || coding.TextEncoder === undefined ? nodeModule('node:util') : undefined;
export const TextDecoder = (coding.TextDecoder ?? coders?.TextDecoder) as typeof util.TextDecoder;
export const TextEncoder = (coding.TextEncoder ?? coders?.TextEncoder) as typeof util.TextEncoder;

/** A variable of the environment; undefined where there is none. */
export function environment(name: string): string | undefined {
  try {
    return processParts()?.env?.[name];
  } catch {
    // Deno throws without the permission to read it.
    return undefined;
  }
}

/** The runtime, as it calls itself. Bun and Deno also have Node's version. */
export function runtimeName(versions = processParts()?.versions): 'Node.js' | 'Bun' | 'Deno' {
  if (versions?.['deno'] !== undefined) return 'Deno';
  return versions?.['bun'] === undefined ? 'Node.js' : 'Bun';
}

/** `linux`, `darwin` …; `''` in browsers. */
export const operatingSystem = (): string => processParts()?.platform ?? '';

/**
 * Calls back when the promises that are settled now have run their continuations. In browsers, which have no such
 * queue, after a few rounds of them.
 */
export const afterTick: (callback: () => void) => void =
  typeof processParts()?.nextTick === 'function'
    ? (callback): void => {
        // Looked up each time: tests replace it.
        (processParts()?.nextTick as (callback: () => void) => void)(callback);
      }
    : (callback): void => {
        queueMicrotask(() => {
          queueMicrotask(() => {
            queueMicrotask(callback);
          });
        });
      };

/** Throws outside of every caller: the exception of a user's callback becomes an uncaught one. */
export function throwLater(error: unknown): void {
  afterTick(() => {
    throw error;
  });
}

/** A warning for the developer: process.emitWarning(), or the console's. */
export function warn(text: string, type: string, code?: string): void {
  const parts = processParts();
  if (typeof parts?.emitWarning === 'function') {
    (parts as { emitWarning(text: string, how: object): void }).emitWarning(text, { type, code });
  } else {
    console.warn(`${type}: ${text}`);
  }
}

/** One line for the developer: on stderr, or on the console. */
export function writeError(line: string): void {
  const stderr = processParts()?.stderr;
  if (typeof stderr?.write === 'function') (stderr as { write(text: string): void }).write(`${line}\n`);
  else console.error(line);
}
