// Memory for data from a server: large blocks with short lives.

import { Buffer, type OwnBuffer } from './buffer.js';
import { nodeModule } from './platform.js';

/**
 * glibc returns free memory to the system beyond twice the largest block that was ever freed, and gets it back page
 * fault by page fault for the next block: half the cost of reading 256 KiB or 1 MiB, or of a large block map. Freeing
 * one block of this length, whose pages are never touched, raises that threshold (M_TRIM_THRESHOLD, mallopt(3)) to
 * 62 MiB; blocks above 32 MiB have no effect. With other C libraries this does nothing.
 */
const TRIM_THRESHOLD_BLOCK = 31 * 1024 * 1024;
/** Done once this process has allocated this many bytes in total: with less there is nothing to gain. */
const WARM_UP_AFTER = 16 * 1024 * 1024;

/** Bytes allocated so far; not counted any further once the block has been freed. */
let allocated = 0;

/**
 * Large blocks of glibc begin 16 bytes into a page, and the data of a file or a pipe at the beginning of one. Where the
 * destination is 1 to 31 bytes ahead of the source, modulo 4096, AMD's processors take four to five times as long for the
 * instruction that the kernel copies with (`rep movsb`): 0.5 ms in place of 0.1 ms for 1 MiB. This many bytes lie before
 * what the kernel writes to.
 */
const APART = 48;

/** Uninitialised memory for what is read from a file, a pipe or a socket. */
export function allocateForInput(length: number): OwnBuffer {
  return Buffer.from(allocate(length + APART).buffer, APART, length);
}

/** Uninitialised memory that is not shared with other buffers. */
export function allocate(length: number): OwnBuffer {
  if (allocated < WARM_UP_AFTER) {
    allocated += length;
    if (allocated >= WARM_UP_AFTER) Buffer.allocUnsafeSlow(TRIM_THRESHOLD_BLOCK);
  }
  return Buffer.allocUnsafeSlow(length);
}

const DETACHING = ['transfer', 'transferToFixedLength', 'transferToImmutable'] as const;

type Mark = (memory: object) => void;
/** Null in a runtime without such a function, such as a browser; undefined until the first look-up. */
let mark: Mark | null | undefined;

/**
 * Makes postMessage() and structuredClone() copy the memory (Node 20) or refuse to transfer it (later ones), as they do
 * with Node's own pool of small Buffers. For what several results share, and for what a socket reads into, which keeps
 * the bare address and would write into memory that was freed. Returns false where there is no such mark. `reason` is
 * the message of a method that would transfer it.
 */
export function markUntransferable(memory: ArrayBuffer, reason: string): boolean {
  // Loaded by the first read: it takes 2 ms, which a program that reads nothing does not need to spend.
  if (mark === undefined) mark = nodeModule('node:worker_threads')?.markAsUntransferable ?? null;
  mark?.(memory);
  const refuse = (): never => {
    throw new TypeError(reason);
  };
  for (const method of DETACHING) {
    // Node 22 respects the mark only in messages.
    if (method in memory) Object.defineProperty(memory, method, { value: refuse });
  }
  return mark !== null;
}

const FOR_READS = new WeakSet<object>();

/**
 * Memory that whole-export work reads into again and again. The caller uses no part of it before a read has succeeded,
 * and gives it up with the first read that is aborted: so it need not be cleared, and a socket may read straight into it.
 */
export function allocateForReads(length: number): OwnBuffer {
  const bytes = allocateForInput(length);
  if (markUntransferable(bytes.buffer, 'this memory is used again for other reads: copy it first'))
    FOR_READS.add(bytes.buffer);
  return bytes;
}

/** Whether it is a part of what allocateForReads() returned. */
export const isForReads = (bytes: Uint8Array): boolean => FOR_READS.has(bytes.buffer);
