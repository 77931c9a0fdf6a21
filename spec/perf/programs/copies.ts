// How many bytes JavaScript copies while large reads arrive: the methods that copy are counted, before the package
// is loaded. (What the kernel puts into a buffer is not a copy of ours.)

import { readWork, Verifier } from './work.js';

const READS = 256;
const work = readWork(process.argv.slice(2));
let copied = 0;
let counting = false;

type Method = (this: Uint8Array, ...args: unknown[]) => unknown;

/** Counts the bytes of a method that copies between buffers. */
function count(
  home: object,
  name: string,
  bytes: (self: Uint8Array, args: unknown[], result: unknown) => number,
): void {
  const original = Reflect.get(home, name) as Method;
  const counted: Method = function (...args) {
    const result = original.apply(this, args);
    if (counting) copied += bytes(this, args, result);
    return result;
  };
  Reflect.set(home, name, counted);
}

const lengthOf = (value: unknown): number => (value as { length?: number }).length ?? 0;
count(Buffer.prototype as object, 'copy', (_self, _args, result) => Number(result));
const bytes = Uint8Array.prototype as object;
count(bytes, 'set', (_self, args) => lengthOf(args[0]));
count(bytes, 'slice', (_self, _args, result) => lengthOf(result));
count(bytes, 'copyWithin', (self) => self.length);
count(Buffer, 'concat', (_self, _args, result) => lengthOf(result));
count(Buffer, 'from', (_self, args, result) => (args[0] instanceof ArrayBuffer ? 0 : lengthOf(result)));

const { NbdConnection } = await import('nbd-sdk');
const connection = await NbdConnection.connect(work.uri);
const verifier = new Verifier(work);
const blocks = work.image / work.size;
let begun = 0;

async function caller(): Promise<void> {
  const mine = Buffer.alloc(work.size);
  while (begun < READS) {
    const offset = (begun++ % blocks) * work.size;
    let buffer: Buffer = mine;
    if (work.op === 'preadInto') await connection.preadInto(buffer, offset);
    else buffer = await connection.pread(work.size, offset);
    verifier.check(buffer, offset);
  }
}

counting = true;
await Promise.all(Array.from({ length: work.depth }, caller));
counting = false;
await connection.shutdown();
process.stdout.write(`${JSON.stringify({ copied, read: begun * work.size, verified: verifier.verified })}\n`);
