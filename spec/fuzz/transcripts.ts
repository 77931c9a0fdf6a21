// The bytes that real servers and this package's client exchanged, kept in transcripts/ by record.ts: fuzzing begins
// with what servers really send, on machines without servers too.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { type Asked, type ReplyMode } from './reply-reference.js';

/** What the client requested in the handshake. */
export interface TranscriptRequest {
  readonly exportName: string;
  readonly structuredReplies: boolean;
  readonly extendedHeaders: boolean;
  readonly metaContexts: readonly string[];
  readonly fullInfo: boolean;
}

export interface Transcript {
  readonly name: string;
  readonly mode: ReplyMode;
  readonly exportSize: bigint;
  readonly contexts: ReadonlyMap<number, string>;
  readonly request: TranscriptRequest;
  /** What the server sent in the handshake, by turns: each but the first answers the client. */
  readonly handshake: readonly Buffer[];
  /** What the client sent in it. */
  readonly options: Buffer;
  /** The commands, whose cookies are 1, 2, 3 …, all in flight at once. */
  readonly asked: readonly Asked[];
  readonly requests: Buffer;
  readonly replies: Buffer;
}

/** The same in a file: bytes in hexadecimal, 64-bit numbers as text. */
export interface StoredTranscript {
  readonly mode: ReplyMode;
  readonly exportSize: string;
  readonly contexts: readonly (readonly [number, string])[];
  readonly request: TranscriptRequest;
  readonly handshake: readonly string[];
  readonly options: string;
  readonly asked: readonly (readonly [method: Asked['method'], count: string, offset: string, flags: number])[];
  readonly requests: string;
  readonly replies: string;
}

export const TRANSCRIPTS = fileURLToPath(new URL('transcripts/', import.meta.url));

const bytes = (hex: string): Buffer => Buffer.from(hex, 'hex');
let loaded: readonly Transcript[] | undefined;

export function transcripts(): readonly Transcript[] {
  loaded ??= readdirSync(TRANSCRIPTS)
    .filter((file) => file.endsWith('.json'))
    .sort()
    .map((file) => {
      const stored = JSON.parse(readFileSync(join(TRANSCRIPTS, file), 'utf8')) as StoredTranscript;
      return {
        name: file.slice(0, -5),
        mode: stored.mode,
        exportSize: BigInt(stored.exportSize),
        contexts: new Map(stored.contexts),
        request: stored.request,
        handshake: stored.handshake.map(bytes),
        options: bytes(stored.options),
        asked: stored.asked.map(([method, count, offset, flags]) => {
          return { method, count: BigInt(count), offset: BigInt(offset), flags };
        }),
        requests: bytes(stored.requests),
        replies: bytes(stored.replies),
      };
    });
  return loaded;
}
