// How much memory a piece of code allocates: the functions that make buffers are counted while it runs.

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import { allocate } from '../../lib/util/memory.js';

type Maker = 'alloc' | 'allocUnsafe' | 'allocUnsafeSlow';
const MAKERS: readonly Maker[] = ['alloc', 'allocUnsafe', 'allocUnsafeSlow'];

/** More than a process takes before glibc gets its one lesson, which is address space and no memory. */
const BEYOND_WARM_UP = 32 * 1024 * 1024;

let counted = 0;

/** Counts from here on, in this process. Returns a function that undoes it. */
export function countBuffers(): () => void {
  allocate(BEYOND_WARM_UP);
  const originals = MAKERS.map((name) => Buffer[name]);
  MAKERS.forEach((name, index) => {
    const original = originals[index] as (size: number, ...rest: never[]) => Buffer<ArrayBuffer>;
    Buffer[name] = (size: number, ...rest: never[]) => {
      counted += size;
      return original(size, ...rest);
    };
  });
  return () => {
    MAKERS.forEach((name, index) => Object.assign(Buffer, { [name]: originals[index] }));
  };
}

/** Bytes of buffers that were made since the last call. */
export function takeCount(): number {
  const count = counted;
  counted = 0;
  return count;
}

let gc: (() => void) | undefined;

/** Collects garbage and gives the bytes that are in use: the heap and the memory of buffers. */
export async function collectGarbage(): Promise<number> {
  if (gc === undefined) {
    setFlagsFromString('--expose-gc');
    gc = runInNewContext('gc') as () => void;
  }
  // The memory of buffers is let go a turn later than they.
  for (let turn = 0; turn < 3; turn++) {
    gc();
    await new Promise((resolve) => setImmediate(resolve));
  }
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}
