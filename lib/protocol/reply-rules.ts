// The rules for each chunk of a reply, and its effect on the command. The decoder moves bytes; the rules are here. A
// method throws where the protocol requires the client to disconnect; otherwise only the command fails.

import { Buffer } from '../util/buffer.js';
import { NbdCommandError, NbdError, NbdProtocolError } from '../errors.js';
import { add, distance, fromHalves, type U64 } from '../util/u64.js';
import { ArrivingBlockStatus, type BlockStatusRequest, decodeBlockStatus, MAX_EXTENTS } from './block-status.js';
import { READ_DATA, READ_ERROR, READ_HOLE } from './client-constants.js';
import { callDetails, describeCall } from './commands.js';
import type { ChunkStatus, ReplyTarget } from './reply-target.js';
import * as c from './constants.js';
import { Coverage } from './coverage.js';
import { chunkName, describeError, errorName, printable, printableText, replaceBytes } from './names.js';

/** What was negotiated, as far as replies depend on it. */
export interface ReplyContext {
  readonly structuredReplies: boolean;
  readonly extendedHeaders: boolean;
  readonly exportSize: U64;
  readonly contexts: ReadonlyMap<number, string>;
  /** A masked export name, which is removed from the server's error messages. */
  readonly secret?: string;
}

/**
 * The most chunks of one reply that bring no new data: errors, holes, block status, data sent twice. 64 MiB in holes of
 * 512 bytes are 2^17 chunks; a longer reply is considered endless.
 */
export const MAX_IDLE_CHUNKS = 2 ** 17;
export const TOO_MANY_IDLE = `more than ${MAX_IDLE_CHUNKS} chunks that bring no data`;
/** The most errors of one reply: a read over many bad sectors may report each; a longer reply is considered endless. */
export const MAX_ERROR_CHUNKS = 1024;
/** Error number, message length, the longest message that a 16-bit length allows, offset. */
const MAX_ERROR_PAYLOAD = 4 + 2 + 65535 + 8;

export class ReplyRules {
  readonly #context: ReplyContext;
  /** The chunk that arrives, if it is long, and its memory. */
  #arriving: { readonly memory: ArrayBufferLike; readonly status: ArrivingBlockStatus } | null = null;

  constructor(context: ReplyContext) {
    this.#context = context;
  }

  /** A violation that ends the connection. */
  violation(command: ReplyTarget, what: string): NbdProtocolError {
    return new NbdProtocolError(
      `${describeCall(command.spec, command.count, command.offset)}: the server sent ${what}`,
      {
        code: 'EPROTO',
        cookie: BigInt(command.cookie),
        ...callDetails(command.spec, command.count, command.offset),
      },
    );
  }

  /** A violation that fails one command. */
  #reject(command: ReplyTarget, why: string, code = 'EPROTO', Kind = NbdProtocolError): void {
    // Only the first error is kept, and making one costs more than a whole chunk.
    if (command.error !== null) return;
    command.fail(
      new Kind(`${describeCall(command.spec, command.count, command.offset)}: ${why}`, {
        code,
        cookie: BigInt(command.cookie),
        ...callDetails(command.spec, command.count, command.offset),
      }),
    );
  }

  #serverError(command: ReplyTarget, wire: number, message: string, at?: U64): NbdError {
    const code = errorName(wire);
    const quotation = message === '' ? '' : `: "${message}"`;
    const where = at === undefined ? '' : ` at offset ${at}`;
    const unknown = code === 'EINVAL' && wire !== c.NBD_EINVAL ? ` (error ${wire} on the wire)` : '';
    const { spec, count, offset } = command;
    return new NbdCommandError(
      `${describeCall(spec, count, offset)}: the server reported ${describeError(code)} (${code})${where}${unknown}${quotation}`,
      {
        code,
        cookie: BigInt(command.cookie),
        ...callDetails(spec, count, offset),
        ...(message === '' ? {} : { serverMessage: message }),
      },
    );
  }

  simpleError(command: ReplyTarget, wire: number): void {
    command.fail(this.#serverError(command, wire, ''));
  }

  simpleSuccess(command: ReplyTarget): void {
    if (command.spec.type === c.NBD_CMD_BLOCK_STATUS) {
      this.#reject(command, 'the server answered with a simple reply, which cannot carry extents');
    }
  }

  /** Extended replies repeat the request's offset. */
  checkReplyOffset(command: ReplyTarget, high: number, low: number): void {
    const offset = fromHalves(high, low);
    if (offset !== command.offset) {
      this.#reject(command, `the server's reply is for offset ${offset}`);
    }
  }

  /**
   * How many bytes of the chunk must be collected before it is decoded; 0 to skip all of it. Throws if a chunk of this
   * type and length is not possible.
   */
  payloadLength(command: ReplyTarget, type: number, length: number, done: boolean): number {
    const isRead = command.spec.type === c.NBD_CMD_READ;
    const isStatus = command.spec.type === c.NBD_CMD_BLOCK_STATUS;
    const bad = (): NbdProtocolError => this.violation(command, `${chunkName(type)} of ${length} bytes`);
    switch (type) {
      case c.NBD_REPLY_TYPE_OFFSET_DATA:
        if (!isRead || length < 9 || length - 8 > Number(command.count)) throw bad();
        return 8;
      case c.NBD_REPLY_TYPE_NONE:
        if (length !== 0 || !done) throw bad();
        return 0;
      case c.NBD_REPLY_TYPE_OFFSET_HOLE:
        if (!isRead || length !== 12) throw bad();
        return length;
      case c.NBD_REPLY_TYPE_BLOCK_STATUS:
        if (!isStatus || length < 12 || length % 8 !== 4 || length > 4 + 8 * MAX_EXTENTS) throw bad();
        if (!this.#context.extendedHeaders) return length;
        this.#reject(command, 'the server sent 32-bit extents although extended headers were negotiated');
        return 0;
      case c.NBD_REPLY_TYPE_BLOCK_STATUS_EXT:
        if (!isStatus || length < 24 || length % 16 !== 8 || length > 8 + 16 * MAX_EXTENTS) throw bad();
        if (this.#context.extendedHeaders) return length;
        this.#reject(command, 'the server sent 64-bit extents although extended headers were not negotiated');
        return 0;
      default:
        if ((type & c.NBD_REPLY_TYPE_FLAG_ERROR) === 0) throw bad();
        if (length < (type === c.NBD_REPLY_TYPE_ERROR_OFFSET ? 14 : 6) || length > MAX_ERROR_PAYLOAD) throw bad();
        return length;
    }
  }

  /** Where in the read a data chunk of `length` bytes belongs; throws when it leaves the read. */
  dataStart(command: ReplyTarget, high: number, low: number, length: number): number {
    const start = distance(high, low, command.offset);
    if (start < 0 || start + length > Number(command.count)) {
      throw this.violation(command, `data for ${length} bytes at offset ${fromHalves(high, low)}, outside the request`);
    }
    this.#cover(command, start, length);
    return start;
  }

  #cover(command: ReplyTarget, start: number, length: number): void {
    if (command.coverage === null) {
      command.coverage = new Coverage(Number(command.count));
    } else if ((command.flags & c.NBD_CMD_FLAG_DF) !== 0 && command.spec.type === c.NBD_CMD_READ) {
      this.#reject(command, 'the server split the reply although the DF flag forbade it');
    }
    if (!command.coverage.add(start, length)) {
      // Repeated data can make a reply endless, as errors and holes can.
      if (++command.idleChunks > MAX_IDLE_CHUNKS) throw this.violation(command, TOO_MANY_IDLE);
      this.#reject(command, `the server sent overlapping data: ${length} bytes at ${add(command.offset, start)}`);
    }
  }

  /** Makes the buffer of a read without one of its own, when the first byte has arrived. */
  prepareBuffer(command: ReplyTarget): void {
    if (command.allocate !== null) {
      command.buffer = command.allocate(Number(command.count));
      command.result = command.buffer;
      command.ownsBuffer = true;
      command.allocate = null;
    }
  }

  /** The caller's buffer was detached (transferred) or shrunk while its read was in flight. */
  bufferLost(command: ReplyTarget): void {
    command.buffer = null;
    this.#reject(command, 'the buffer was detached or resized while the read was in flight', 'EFAULT', NbdError);
  }

  dataArrived(command: ReplyTarget, start: number, length: number): void {
    this.#notify(command, start, length, READ_DATA, null);
  }

  /** The first `length` bytes of a long chunk, in memory of its own, have arrived. */
  arriving(command: ReplyTarget, type: number, bytes: Buffer, length: number): void {
    const isExtended = type === c.NBD_REPLY_TYPE_BLOCK_STATUS_EXT;
    if (!isExtended && type !== c.NBD_REPLY_TYPE_BLOCK_STATUS) return;
    const from = isExtended ? 8 : 4;
    if (this.#arriving?.memory !== bytes.buffer) {
      const status = new ArrivingBlockStatus(bytes.subarray(from), isExtended, this.#statusRequest(command));
      this.#arriving = { memory: bytes.buffer, status };
    }
    this.#arriving.status.arrived(length - from);
  }

  /** A whole chunk that is not data. */
  payload(command: ReplyTarget, type: number, bytes: Buffer): void {
    switch (type) {
      case c.NBD_REPLY_TYPE_OFFSET_HOLE:
        this.#hole(command, bytes);
        break;
      case c.NBD_REPLY_TYPE_BLOCK_STATUS:
      case c.NBD_REPLY_TYPE_BLOCK_STATUS_EXT:
        this.#blockStatus(command, type, bytes);
        break;
      default:
        this.#error(command, type, bytes);
    }
  }

  #hole(command: ReplyTarget, bytes: Buffer): void {
    const high = bytes.readUInt32BE(0);
    const low = bytes.readUInt32BE(4);
    const length = bytes.readUInt32BE(8);
    if (length === 0) throw this.violation(command, 'a hole of no bytes');
    const start = this.dataStart(command, high, low, length);
    this.prepareBuffer(command);
    if (command.buffer !== null) {
      if (command.buffer.length < start + length) this.bufferLost(command);
      else command.buffer.fill(0, start, start + length);
    }
    this.#notify(command, start, length, READ_HOLE, null);
  }

  #error(command: ReplyTarget, type: number, bytes: Buffer): void {
    command.errorChunks++;
    if (command.errorChunks > MAX_ERROR_CHUNKS) {
      throw this.violation(command, `more than ${MAX_ERROR_CHUNKS} errors in one reply`);
    }
    const wire = bytes.readUInt32BE(0);
    const messageLength = bytes.readUInt16BE(4);
    const tail = type === c.NBD_REPLY_TYPE_ERROR_OFFSET ? 8 : 0;
    if (6 + messageLength + tail > bytes.length) {
      throw this.violation(command, `an error whose message of ${messageLength} bytes runs past the chunk`);
    }
    if (wire === 0) {
      this.#reject(command, 'the server sent an error chunk with error number 0');
      return;
    }
    const text = bytes.subarray(6, 6 + messageLength);
    const { secret = '' } = this.#context;
    const message = printable(secret === '' ? text : replaceBytes(text, secret, '***'));
    if (tail === 0) {
      command.fail(this.#serverError(command, wire, message));
      return;
    }
    const high = bytes.readUInt32BE(6 + messageLength);
    const low = bytes.readUInt32BE(10 + messageLength);
    const start = distance(high, low, command.offset);
    if (start < 0 || (command.count !== 0 && start >= Number(command.count))) {
      throw this.violation(command, `an error for offset ${fromHalves(high, low)}, outside the request`);
    }
    const error = this.#serverError(command, wire, message, fromHalves(high, low));
    command.fail(error);
    this.#notify(command, start, 0, READ_ERROR, error);
  }

  #blockStatus(command: ReplyTarget, type: number, bytes: Buffer): void {
    const extended = type === c.NBD_REPLY_TYPE_BLOCK_STATUS_EXT;
    const arriving = this.#arriving?.memory === bytes.buffer ? this.#arriving.status : null;
    this.#arriving = null;
    const id = bytes.readUInt32BE(0);
    if (extended && bytes.readUInt32BE(4) !== (bytes.length - 8) / 16) {
      throw this.violation(command, `${bytes.readUInt32BE(4)} extents in a chunk of ${bytes.length} bytes`);
    }
    const context = this.#context.contexts.get(id);
    if (context === undefined || command.expected?.includes(id) === false) {
      this.#reject(command, `the server reported on context ${id}, which was not asked for`);
      return;
    }
    command.reported ??= [];
    if (command.reported.includes(id)) {
      this.#reject(command, `the server reported twice on ${printableText(context)}`);
      return;
    }
    command.reported.push(id);
    const data = bytes.subarray(extended ? 8 : 4);
    // Only short payloads share memory with the next chunk.
    const mayKeep = bytes.length > c.EXTENDED_REPLY_LENGTH;
    arriving?.arrived(data.length);
    const { entries, problem } =
      arriving?.decoded() ?? decodeBlockStatus(data, extended, this.#statusRequest(command), mayKeep);
    if (problem !== null) {
      this.#reject(command, `in the server's extents for ${printableText(context)} ${problem.reason}`, problem.code);
    }
    if (entries.length > 0 && command.onExtent !== null && !command.settled) {
      this.#guard(command, () => command.onExtent?.(context, BigInt(command.offset), entries));
    }
  }

  #statusRequest(command: ReplyTarget): BlockStatusRequest {
    return {
      count: command.count,
      offset: command.offset,
      exportSize: this.#context.exportSize,
      onlyFirst: (command.flags & c.NBD_CMD_FLAG_REQ_ONE) !== 0,
      wide: command.spec.wideExtents,
    };
  }

  #notify(command: ReplyTarget, start: number, length: number, status: ChunkStatus, error: NbdError | null): void {
    if (command.onChunk === null || command.settled || command.buffer === null) return;
    const view = command.buffer;
    // From here on the callback can transfer the memory to another thread.
    command.ownsBuffer = false;
    const subbuf = Buffer.from(view.buffer, view.byteOffset + start, length);
    this.#guard(command, () => command.onChunk?.(subbuf, BigInt(add(command.offset, start)), status, error));
  }

  /** A callback that throws fails its command with what it threw; the connection goes on. */
  #guard(command: ReplyTarget, call: () => void): void {
    try {
      call();
    } catch (thrown) {
      command.thrown ??= { value: thrown };
    }
  }

  /** The last chunk has arrived: a read must have all its bytes, a block status all its contexts. */
  replyComplete(command: ReplyTarget): void {
    if (command.error !== null) return;
    if (command.spec.type === c.NBD_CMD_READ) {
      if (command.coverage !== null && !command.coverage.isComplete) {
        this.#reject(command, `the server sent ${command.coverage.covered} of ${command.count} bytes`);
      } else if (command.coverage === null && (this.#context.structuredReplies || this.#context.extendedHeaders)) {
        if (command.count !== 0) this.#reject(command, 'the server sent no data');
      }
    } else if (command.spec.type === c.NBD_CMD_BLOCK_STATUS) {
      const expected = command.expected ?? [...this.#context.contexts.keys()];
      const missing = expected.filter((id) => command.reported?.includes(id) !== true);
      if (missing.length > 0) {
        const names = missing.map((id) => printableText(this.#context.contexts.get(id) ?? String(id))).join(', ');
        this.#reject(command, `the server did not report on ${names}`);
      }
    }
  }
}
