// The floor under any Node client: the same request bytes on the same socket, one write per batch, and reply bytes
// that are counted and not looked at. Its first read is parsed, to learn how long a reply is and to check the data.

import { Socket } from 'node:net';
import { Meter, Offsets, readWork, Verifier } from './work.js';

const work = readWork(process.argv.slice(2));
const meter = new Meter(work);
const offsets = new Offsets(work);
const COMMANDS: Record<string, number> = { pread: 0, preadInto: 0, cache: 5, aioCache: 5 };
const command = COMMANDS[work.op];
if (command === undefined) throw new Error(`no floor for ${work.op}`);

const scratch = Buffer.allocUnsafeSlow(256 * 1024);
let take: (length: number) => void = () => undefined;
const onread = {
  buffer: scratch,
  callback: (length: number): boolean => {
    take(length);
    return true;
  },
};
const socket = new Socket({ onread } as object);
const uri = new URL(work.uri);
const path = uri.searchParams.get('socket');
socket.connect(path === null ? { host: uri.hostname, port: Number(uri.port), noDelay: true } : { path });
await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));

// Bytes of the handshake and of the first reply are collected; a reader waits for a number of them.
let collected = Buffer.alloc(0);
let wanted = 0;
let arrived: (() => void) | undefined;
take = (length) => {
  collected = Buffer.concat([collected, scratch.subarray(0, length)]);
  if (collected.length >= wanted) arrived?.();
};
async function read(length: number): Promise<Buffer> {
  wanted = length;
  if (collected.length < length) await new Promise<void>((resolve) => (arrived = resolve));
  const bytes = collected.subarray(0, length);
  collected = collected.subarray(length);
  return bytes;
}

async function option(number: number, data: Buffer): Promise<void> {
  const header = Buffer.from('IHAVEOPT\0\0\0\0\0\0\0\0', 'latin1');
  header.writeUInt32BE(number, 8);
  header.writeUInt32BE(data.length, 12);
  socket.write(Buffer.concat([header, data]));
  for (;;) {
    const reply = await read(20);
    const type = reply.readUInt32BE(12);
    await read(reply.readUInt32BE(16));
    if (type === 1) return; // NBD_REP_ACK
    if (type > 0x8000_0000) throw new Error(`option ${number}: ${type.toString(16)}`);
  }
}

const REQUEST_LENGTH = 28;
const SLAB_REQUESTS = 1024;
let cookie = 0;

/** A request at `at` of the slab. */
function request(slab: Buffer, at: number, offset: number): void {
  slab.writeUInt32BE(0x25609513, at);
  slab.writeUInt32BE(command as number, at + 4);
  slab.writeUInt32BE(0, at + 8);
  slab.writeUInt32BE(++cookie, at + 12);
  slab.writeUInt32BE(0, at + 16);
  slab.writeUInt32BE(offset, at + 20);
  slab.writeUInt32BE(work.size, at + 24);
}

/** One reply, to learn its length. */
async function probe(): Promise<number> {
  const slab = Buffer.alloc(REQUEST_LENGTH);
  request(slab, 0, 0);
  socket.write(slab);
  const verifier = new Verifier(work);
  const header = await read(16);
  const payload = command === 0 ? work.size : 0;
  if (header.readUInt32BE(0) === 0x67446698) {
    if (payload > 0) verifier.check(await read(payload), 0);
    return 16 + payload;
  }
  const length = (await read(4)).readUInt32BE(0);
  const rest = await read(length);
  if (header.readUInt16BE(4) !== 1) throw new Error('a reply in several chunks');
  if (payload > 0) verifier.check(rest.subarray(8), 0);
  return 20 + length;
}

await read(18); // NBDMAGIC IHAVEOPT and the flags, of which fixed newstyle and no zeroes are taken
socket.write(Buffer.from([0, 0, 0, 3]));
if (!work.simple) await option(8, Buffer.alloc(0)).catch(() => undefined); // NBD_OPT_STRUCTURED_REPLY
await option(7, Buffer.alloc(6)); // NBD_OPT_GO
const replyLength = await probe();

// Two slabs in turn: what was given to the socket may not have left when the next batch is due.
const slabs = [Buffer.alloc(SLAB_REQUESTS * REQUEST_LENGTH), Buffer.alloc(SLAB_REQUESTS * REQUEST_LENGTH)];
let turn = 0;
let bytes = 0;
let inFlight = 0;
let sampled = 0;

/** Writes as many requests as there is room for in the window, in one write. */
function issue(): void {
  const slab = slabs[turn++ % 2] as Buffer;
  let at = 0;
  for (; inFlight < work.depth && !meter.isStopped; inFlight++) {
    request(slab, at, offsets.next());
    at += REQUEST_LENGTH;
    sampled = meter.begin();
  }
  if (at > 0) socket.write(slab.subarray(0, at));
}

let finish: () => void;
const finished = new Promise<void>((resolve) => (finish = resolve));
take = (length) => {
  bytes += length;
  for (; bytes >= replyLength; bytes -= replyLength) {
    inFlight--;
    meter.end(sampled);
    sampled = 0;
  }
  issue();
  if (meter.isStopped && inFlight === 0) finish();
};
meter.start();
issue();
await finished;
socket.destroy();
meter.report(work.checkPattern ? 1 : 0);
