// A second reading of proto.md's replies: slow, with the whole stream in hand, and sharing no line with lib/. It
// describes of any bytes what must become of each command, which bytes of its buffer the stream carried, and whether
// the connection is lost. Where the protocol leaves a choice the package's documented one is taken: what costs the
// framing, or what "MUST disconnect", costs the connection; everything else costs its command alone (EPROTO).

export type ReplyMode = 'simple' | 'structured' | 'extended';

/** A command in flight, as far as its reply is read by it. */
export interface Asked {
  readonly method:
    ('pread' | 'preadStructured' | 'pwrite' | 'flush' | 'trim' | 'cache' | 'zero') | ('blockStatus' | 'blockStatus64');
  readonly count: bigint;
  readonly offset: bigint;
  readonly flags: number;
}

export interface ReplyContext {
  readonly mode: ReplyMode;
  readonly exportSize: bigint;
  readonly contexts: ReadonlyMap<number, string>;
}

/** What became of one command. */
export interface Outcome {
  /** 'pending', 'ok', or the class and the errno name. */
  ending: string;
  /** The first thing that went wrong, also while more of the reply is to come. */
  error: string | null;
  /** The whole buffer of a read: FILL where the stream carried nothing. */
  readonly data: Uint8Array;
  /** Arguments of preadStructured's callback: status, start, length. */
  readonly told: number[][];
  /** Arguments of the callback of block status: context and flat entries. */
  readonly extents: [string, ...bigint[]][];
}

export interface Expectation {
  readonly outcomes: readonly Outcome[];
  /** The connection is lost. */
  readonly violation: boolean;
  /** Nothing of a reply is under way. */
  readonly atBoundary: boolean;
  readonly messages: number;
}

/** What a read's buffer holds before. */
export const FILL = 0xdb;

const ERRNO = new Map([
  [1, 'EPERM'],
  [5, 'EIO'],
  [12, 'ENOMEM'],
  [22, 'EINVAL'],
  [28, 'ENOSPC'],
  [75, 'EOVERFLOW'],
  [95, 'ENOTSUP'],
  [108, 'ESHUTDOWN'],
]);
const READS = ['pread', 'preadStructured'];
const STATUSES = ['blockStatus', 'blockStatus64'];
const DF = 4;
const REQ_ONE = 8;
const MAX_EXTENTS = 1n << 20n;
const MAX_ERRORS = 1024;

class Violation extends Error {}
class Starved extends Error {}

class Reading {
  readonly asked: Asked;
  readonly isRead: boolean;
  readonly isStatus: boolean;
  isDone = false;
  readonly arrived: Uint8Array;
  dataChunks = 0;
  errors = 0;
  readonly reported = new Set<number>();
  readonly outcome: Outcome;

  constructor(asked: Asked) {
    this.asked = asked;
    this.isRead = READS.includes(asked.method);
    this.isStatus = STATUSES.includes(asked.method);
    const length = this.isRead ? Number(asked.count) : 0;
    this.arrived = new Uint8Array(length);
    this.outcome = { ending: 'pending', error: null, data: new Uint8Array(length).fill(FILL), told: [], extents: [] };
  }

  fail(error: string): void {
    this.outcome.error ??= error;
  }

  breach(code = 'EPROTO'): void {
    this.fail(`NbdProtocolError ${code}`);
  }

  /** Takes a piece of the range; which bytes they are comes later. */
  claim(start: bigint, length: bigint): void {
    if (start < 0n || start + length > this.asked.count) throw new Violation();
    if (this.dataChunks++ > 0 && (this.asked.flags & DF) !== 0) this.breach();
    let twice = false;
    for (let at = Number(start); at < Number(start + length); at++) {
      if (this.arrived[at] === 1) twice = true;
      this.arrived[at] = 1;
    }
    if (twice) this.breach();
  }

  tell(status: number, start: bigint, length: bigint): void {
    if (this.asked.method === 'preadStructured') this.outcome.told.push([status, Number(start), Number(length)]);
  }
}

/** What the bytes contain for these commands, whose cookies are 1, 2, 3 … */
export function expectReplies(context: ReplyContext, asked: readonly Asked[], bytes: Buffer): Expectation {
  const reader = new ReplyReader(context, asked, bytes);
  let violation = false;
  try {
    while (reader.at < bytes.length) {
      reader.atBoundary = false;
      reader.message();
      reader.atBoundary = true;
    }
  } catch (error) {
    if (error instanceof Violation) violation = true;
    else if (!(error instanceof Starved)) throw error;
  }
  return {
    outcomes: reader.readings.map((each) => each.outcome),
    violation,
    atBoundary: reader.atBoundary,
    messages: reader.messages,
  };
}

class ReplyReader {
  readonly readings: Reading[];
  at = 0;
  atBoundary = true;
  messages = 0;
  readonly #context: ReplyContext;
  readonly #bytes: Buffer;

  constructor(context: ReplyContext, asked: readonly Asked[], bytes: Buffer) {
    this.#context = context;
    this.#bytes = bytes;
    this.readings = asked.map((each) => new Reading(each));
  }

  #uint(width: 1 | 2 | 4 | 8): bigint {
    let value = 0n;
    for (const byte of this.#take(BigInt(width))) value = value * 256n + BigInt(byte);
    return value;
  }

  #take(length: bigint): Buffer {
    if (BigInt(this.at) + length > BigInt(this.#bytes.length)) throw new Starved();
    const taken = this.#bytes.subarray(this.at, this.at + Number(length));
    this.at += Number(length);
    return taken;
  }

  message(): void {
    const { mode } = this.#context;
    const magic = this.#uint(4);
    if (mode !== 'extended' && magic === 0x67446698n) this.#simple();
    else if (mode === 'structured' && magic === 0x668e33efn) this.#chunk(false);
    else if (mode === 'extended' && magic === 0x6e8a278cn) this.#chunk(true);
    else throw new Violation();
  }

  #find(cookie: bigint): Reading {
    this.messages++;
    const reading = this.readings[Number(cookie) - 1];
    if (reading === undefined || reading.isDone) throw new Violation();
    return reading;
  }

  #simple(): void {
    const error = Number(this.#uint(4));
    const reading = this.#find(this.#uint(8));
    if (error !== 0) reading.fail(serverError(error));
    else if (reading.isRead) {
      // "The server MUST use a structured reply to a read once that is negotiated".
      if (this.#context.mode !== 'simple') throw new Violation();
      if (reading.asked.count > 0n) {
        reading.arrived.fill(1);
        this.#data(reading, 0n, reading.asked.count);
      }
    } else if (reading.isStatus) reading.breach();
    this.#done(reading, error === 0 && reading.isRead);
  }

  /** The bytes of a piece as far as they have come; one that is cut short is not reported. */
  #data(reading: Reading, start: bigint, length: bigint): void {
    const there = this.#bytes.subarray(this.at, this.at + Number(length));
    reading.outcome.data.set(there, Number(start));
    this.#take(length);
    reading.tell(1, start, length);
  }

  #chunk(extended: boolean): void {
    const flags = this.#uint(2);
    const type = Number(this.#uint(2));
    const cookie = this.#uint(8);
    const offset = extended ? this.#uint(8) : null;
    const length = this.#uint(extended ? 8 : 4);
    const reading = this.#find(cookie);
    const done = flags % 2n === 1n;
    if (offset !== null && offset !== reading.asked.offset) reading.breach();
    if (type === 0) {
      if (length !== 0n || !done) throw new Violation();
    } else if (type === 1) this.#offsetData(reading, length);
    else if (type === 2) this.#hole(reading, length);
    else if (type === 5 || type === 6) this.#status(reading, type === 6, length);
    else if (type >= 0x8000) this.#error(reading, type === 0x8002, length);
    else throw new Violation();
    if (done) this.#done(reading, false);
  }

  #offsetData(reading: Reading, length: bigint): void {
    if (!reading.isRead || length < 9n || length - 8n > reading.asked.count) throw new Violation();
    const start = this.#uint(8) - reading.asked.offset;
    reading.claim(start, length - 8n);
    this.#data(reading, start, length - 8n);
  }

  #hole(reading: Reading, length: bigint): void {
    if (!reading.isRead || length !== 12n) throw new Violation();
    const payload = this.#take(12n);
    const start = payload.readBigUInt64BE(0) - reading.asked.offset;
    const zeroes = BigInt(payload.readUInt32BE(8));
    if (zeroes === 0n) throw new Violation();
    reading.claim(start, zeroes);
    reading.outcome.data.fill(0, Number(start), Number(start + zeroes));
    reading.tell(2, start, zeroes);
  }

  #error(reading: Reading, hasOffset: boolean, length: bigint): void {
    const tail = hasOffset ? 8 : 0;
    if (length < BigInt(6 + tail) || length > 4n + 2n + 65535n + 8n) throw new Violation();
    const payload = this.#take(length);
    if (++reading.errors > MAX_ERRORS) throw new Violation();
    const end = 6 + payload.readUInt16BE(4);
    if (end + tail > payload.length) throw new Violation();
    const number = payload.readUInt32BE(0);
    if (number === 0) {
      reading.breach();
      return;
    }
    if (hasOffset) {
      const start = payload.readBigUInt64BE(end) - reading.asked.offset;
      const beyond = reading.asked.count > 0n && start >= reading.asked.count;
      if (start < 0n || beyond || start > BigInt(Number.MAX_SAFE_INTEGER)) throw new Violation();
      reading.tell(3, start, 0n);
    }
    reading.fail(serverError(number));
  }

  #status(reading: Reading, wide: boolean, length: bigint): void {
    const [head, each] = wide ? [8n, 16n] : [4n, 8n];
    const entries = (length - head) / each;
    if (!reading.isStatus || (length - head) % each !== 0n || entries < 1n || entries > MAX_EXTENTS) {
      throw new Violation();
    }
    const payload = this.#take(length);
    if (wide !== (this.#context.mode === 'extended')) {
      reading.breach();
      return;
    }
    const id = payload.readUInt32BE(0);
    if (wide && BigInt(payload.readUInt32BE(4)) !== entries) throw new Violation();
    const name = this.#context.contexts.get(id);
    if (name === undefined || reading.reported.has(id)) {
      reading.breach();
      return;
    }
    reading.reported.add(id);
    const pairs: [bigint, bigint][] = [];
    for (let at = Number(head); at < payload.length; at += Number(each)) {
      pairs.push(
        wide
          ? [payload.readBigUInt64BE(at), payload.readBigUInt64BE(at + 8)]
          : [BigInt(payload.readUInt32BE(at)), BigInt(payload.readUInt32BE(at + 4))],
      );
    }
    const told = this.#usable(reading, pairs);
    if (told.length > 0) reading.outcome.extents.push([name, ...told.flat()]);
  }

  /** The extents that may be believed: up to the end of the request, the first of length 0, or the export's end. */
  #usable(reading: Reading, pairs: readonly [bigint, bigint][]): [bigint, bigint][] {
    const { asked } = reading;
    const narrow = asked.method === 'blockStatus';
    const told: [bigint, bigint][] = [];
    let covered = 0n;
    for (const [length, flags] of (asked.flags & REQ_ONE) !== 0 ? pairs.slice(0, 1) : pairs) {
      if (covered >= asked.count) break;
      if (length === 0n) {
        if (told.length === 0) reading.breach();
        break;
      }
      if (asked.offset + covered + length > this.#context.exportSize) {
        reading.breach();
        break;
      }
      if (narrow && flags > 0xffff_ffffn) {
        if (told.length === 0) reading.breach('EOVERFLOW');
        break;
      }
      // 32-bit callers get an extent that is too long for them cut to a multiple of every block size, as the last.
      if (narrow && this.#context.mode === 'extended' && length > 0xffff_0000n) {
        told.push([0xffff_0000n, flags]);
        break;
      }
      told.push([length, flags]);
      covered += length;
    }
    return told;
  }

  #done(reading: Reading, isWhole: boolean): void {
    reading.isDone = true;
    if (reading.isRead && !isWhole && reading.arrived.includes(0)) reading.breach();
    if (reading.isStatus && [...this.#context.contexts.keys()].some((id) => !reading.reported.has(id)))
      reading.breach();
    reading.outcome.ending = reading.outcome.error ?? 'ok';
  }
}

const serverError = (number: number): string => `NbdCommandError ${ERRNO.get(number) ?? 'EINVAL'}`;
