// One connection of a scripted peer: the server's side of the protocol, which follows the protocol except where the
// script differs. Written as straight-line code: the wire throws when the client has gone.

import { setTimeout as delay } from 'node:timers/promises';

import * as c from '../protocol/constants.js';
import { commandAnswer, optionAnswer } from './answers.js';
import { greeting, pattern } from './messages.js';
import type { PeerRecording, ReceivedCommand, ReceivedOption } from './recording.js';
import { checkClientFlags, checkCommand, checkOption } from './rules.js';
import type { Plan } from './script.js';
import type { PeerRequest, ReplyMode, Script, Step } from './steps.js';
import { EndOfStream, type Wire } from './wire.js';

const OLDSTYLE_LENGTH = 152;
const OPTION_MAGIC = 'IHAVEOPT';
const BATCH = 64 * 1024;
/** Longest option data, and longest write payload, that is read. */
const MAX_DATA = 64 * 1024 * 1024;
/** Milliseconds that a client may take to close after NBD_CMD_DISC or NBD_OPT_ABORT. */
const GOODBYE = 1000;

export class PeerSession {
  readonly #wire: Wire;
  readonly #plan: Plan;
  readonly #recording: PeerRecording;
  readonly #inFlight = new Set<bigint>();
  readonly #collected: PeerRequest[] = [];
  #mode: ReplyMode = 'simple';
  #contextIds: number[] = [];

  constructor(wire: Wire, plan: Plan, recording: PeerRecording) {
    this.#wire = wire;
    this.#plan = plan;
    this.#recording = recording;
  }

  /** Serves the connection to its end. Never rejects because of the client's behaviour. */
  async run(): Promise<void> {
    try {
      if (await this.#shakeHands()) await this.#transmit();
    } catch (error) {
      if (!(error instanceof EndOfStream)) throw error;
    } finally {
      this.#wire.destroy();
      this.#recording.finish();
    }
  }

  /** True when the transmission phase begins. */
  async #shakeHands(): Promise<boolean> {
    this.#wire.capture();
    await this.#perform(this.#plan.greet ?? greeting(this.#plan.handshakeFlags));
    if (this.#saidOldstyle()) return true;
    const recording = this.#recording;
    recording.clientFlags ??= (await this.#wire.read(4)).readUInt32BE(0);
    if (!this.#wire.isSilent) {
      recording.violations.push(...checkClientFlags(recording.clientFlags, this.#plan.handshakeFlags));
    }
    for (;;) {
      const option = await this.#readOption();
      if (option === undefined) return false;
      if (await this.#answerOption(option)) return true;
    }
  }

  #saidOldstyle(): boolean {
    const said = this.#wire.captured;
    return (
      said.length === OLDSTYLE_LENGTH &&
      said.readUInt32BE(8) === c.NBD_OLDSTYLE_MAGIC_HIGH &&
      said.readUInt32BE(12) === c.NBD_OLDSTYLE_MAGIC_LOW
    );
  }

  async #readOption(): Promise<ReceivedOption | undefined> {
    const header = await this.#wire.read(16);
    const length = header.readUInt32BE(12);
    if (header.toString('latin1', 0, 8) !== OPTION_MAGIC || length > MAX_DATA) {
      await this.#giveUp('bytes that are not an option');
      return undefined;
    }
    const data = await this.#wire.read(length);
    const option = { option: header.readUInt32BE(8), data, tls: this.#wire.isSecure };
    const { violations, options } = this.#recording;
    if (this.#wire.buffered > 0 && !this.#wire.isSilent) violations.push(`bytes after option ${option.option}`);
    violations.push(...checkOption(option, this.#wire.isSecure, this.#mode === 'extended'));
    options.push(option);
    return option;
  }

  /** True if the reply started the transmission phase. */
  async #answerOption(option: ReceivedOption): Promise<boolean> {
    const steps = this.#plan.forOption(option);
    this.#wire.capture();
    await this.#perform(steps ?? optionAnswer(option, this.#plan, this.#recording.clientFlags ?? 0), option);
    if (steps !== undefined) this.#recording.setMark();
    if (option.option === c.NBD_OPT_ABORT && steps === undefined) {
      await this.#sayGoodbye('OPT_ABORT');
      return false;
    }
    return this.#applyAnswer(option.option);
  }

  /** Applies the modes that the reply just sent has granted. */
  #applyAnswer(option: number): boolean {
    if (option === c.NBD_OPT_EXPORT_NAME) return !this.#wire.isSilent;
    const end = this.#wire.capturedTail;
    const isAcknowledged =
      end.length === 20 &&
      end.readUInt32BE(8) === option &&
      end.readUInt32BE(12) === c.NBD_REP_ACK &&
      end.readUInt32BE(16) === 0;
    if (!isAcknowledged) return false;
    if (option === c.NBD_OPT_STRUCTURED_REPLY && this.#mode === 'simple') this.#mode = 'structured';
    if (option === c.NBD_OPT_EXTENDED_HEADERS) this.#mode = 'extended';
    if (option === c.NBD_OPT_SET_META_CONTEXT) this.#contextIds = contextIdsOf(this.#wire.captured);
    return option === c.NBD_OPT_GO;
  }

  async #transmit(): Promise<void> {
    this.#recording.inTransmission = true;
    if (this.#plan.onTransmission !== undefined) {
      await this.#perform(this.#plan.onTransmission);
      this.#recording.setMark();
    }
    for (;;) {
      const command = await this.#readHeader();
      if (command === undefined) return;
      const request = this.#requestOf(command);
      if (command.type === c.NBD_CMD_DISC) {
        await this.#disconnect(request);
        return;
      }
      const isAnswered = await this.#takePayload(request, command);
      if (!isAnswered) await this.#answerCommand(request);
    }
  }

  async #readHeader(): Promise<ReceivedCommand | undefined> {
    const magic = (await this.#wire.read(4)).readUInt32BE(0);
    const extended = magic === c.NBD_EXTENDED_REQUEST_MAGIC;
    if (!extended && magic !== c.NBD_REQUEST_MAGIC) {
      await this.#giveUp('bytes that are not a command');
      return undefined;
    }
    const header = await this.#wire.read((extended ? c.EXTENDED_REQUEST_LENGTH : c.REQUEST_LENGTH) - 4);
    const command: ReceivedCommand = {
      type: header.readUInt16BE(2),
      flags: header.readUInt16BE(0),
      cookie: header.readBigUInt64BE(4),
      offset: header.readBigUInt64BE(12),
      length: extended ? header.readBigUInt64BE(20) : BigInt(header.readUInt32BE(20)),
      extended,
      tls: this.#wire.isSecure,
    };
    const { commands, violations } = this.#recording;
    commands.push(command);
    violations.push(...checkCommand(command, this.#mode));
    if (this.#inFlight.has(command.cookie)) violations.push(`cookie ${command.cookie} reused in flight`);
    this.#inFlight.add(command.cookie);
    return command;
  }

  /** Reads a write's payload; true if the script has already replied. */
  async #takePayload(request: PeerRequest, command: ReceivedCommand): Promise<boolean> {
    const hasPayload =
      request.type === c.NBD_CMD_WRITE || (request.extended && (request.flags & c.NBD_CMD_FLAG_PAYLOAD_LEN) !== 0);
    if (!hasPayload) return false;
    const steps = request.type === c.NBD_CMD_WRITE ? this.#plan.takeAfterWriteHeader() : undefined;
    if (steps !== undefined) {
      await this.#perform(steps, request);
      this.#recording.setMark();
      this.#inFlight.delete(request.cookie);
    }
    if (request.length > MAX_DATA) {
      await this.#giveUp(`a payload of ${request.length} bytes`);
      throw new EndOfStream();
    }
    this.#recording.keepPayload(command, Buffer.from(await this.#wire.read(Number(request.length))));
    return steps !== undefined;
  }

  async #answerCommand(request: PeerRequest): Promise<void> {
    const script = this.#plan.forCommand(request.type);
    if (script === undefined) {
      const context = { mode: this.#mode, size: this.#plan.size, contextIds: this.#contextIds };
      this.#inFlight.delete(request.cookie);
      await this.#wire.write(commandAnswer(request, context));
      return;
    }
    this.#collected.push(request);
    if (this.#collected.length < (script.collect ?? 1)) return;
    const requests = this.#collected.splice(0);
    this.#plan.used(script);
    for (const { cookie } of requests) this.#inFlight.delete(cookie);
    await this.#perform(script.steps, ...requests);
    this.#recording.setMark();
  }

  async #disconnect(request: PeerRequest): Promise<void> {
    if (this.#plan.onDisconnect === undefined) {
      await this.#sayGoodbye('NBD_CMD_DISC');
      return;
    }
    await this.#perform(this.#plan.onDisconnect, request);
    this.#recording.setMark();
    const rest = await this.#wire.drain();
    if (rest > 0) this.#recording.violations.push(`${rest} bytes after NBD_CMD_DISC`);
  }

  /** Half-closes and waits for the client to close; it must not send anything more. */
  async #sayGoodbye(after: string): Promise<void> {
    this.#wire.fin();
    const impatience = setTimeout(() => this.#wire.destroy(), GOODBYE);
    const rest = await this.#wire.drain();
    clearTimeout(impatience);
    if (rest > 0) this.#recording.violations.push(`${rest} bytes after ${after}`);
  }

  /**
   * Records unintelligible input and reads to the end. It is not a violation if the peer itself has stopped sending.
   */
  async #giveUp(why: string): Promise<void> {
    if (this.#wire.isWritable) this.#recording.violations.push(why);
    await this.#wire.drain();
  }

  #requestOf(command: ReceivedCommand): PeerRequest {
    const contextId = this.#contextIds[0] ?? 1;
    let data: Buffer | undefined;
    return {
      ...command,
      contextId,
      // Created on access: most commands need no data, and a length may be 2^40.
      get data() {
        return (data ??= pattern(command.offset, command.length));
      },
    };
  }

  async #perform<Arguments extends readonly unknown[]>(
    script: Script<Arguments>,
    ...request: Arguments
  ): Promise<void> {
    const steps = typeof script === 'function' ? script(...request) : script;
    const list: readonly Step[] = isList(steps) ? steps : [steps];
    for (const step of list) await this.#step(step);
  }

  async #step(step: Step): Promise<void> {
    const wire = this.#wire;
    if (ArrayBuffer.isView(step)) return wire.write(step);
    switch (step.do) {
      case 'close':
        return wire.close();
      case 'fin':
        wire.fin();
        return;
      case 'rst':
        wire.reset();
        return;
      case 'stall':
        wire.silence();
        return;
      case 'tls':
        // Everything negotiated in plaintext is discarded.
        this.#mode = 'simple';
        this.#contextIds = [];
        return wire.startTls(this.#plan.tls);
      case 'sleep':
        return delay(step.milliseconds);
      case 'quiet':
        return this.#listen(step.milliseconds);
      case 'recv':
        return this.#receive(step.count);
      case 'trickle':
        for (const byte of step.bytes) {
          await wire.write(Uint8Array.of(byte));
          await delay(step.gap);
        }
        return;
      case 'repeat':
        return this.#repeat(step.count, step.make);
      case 'rawplain':
        return wire.writeRaw(step.bytes);
      case 'mode':
        this.#mode = step.mode;
    }
  }

  async #listen(milliseconds: number): Promise<void> {
    const before = this.#recording.bytesReceived - this.#wire.buffered;
    await delay(milliseconds);
    const extra = this.#recording.bytesReceived - before;
    if (extra > 0) this.#recording.violations.push(`${extra} bytes while the client had to wait`);
  }

  async #receive(count: number): Promise<void> {
    const bytes = await this.#wire.read(count);
    // A scripted greeting that waits for the client flags has read them for us.
    if (count === 4 && this.#recording.options.length === 0 && !this.#recording.inTransmission) {
      this.#recording.clientFlags ??= bytes.readUInt32BE(0);
    }
  }

  async #repeat(count: number, make: (index: number) => Uint8Array): Promise<void> {
    for (let index = 0; index < count && this.#wire.isWritable;) {
      const batch: Uint8Array[] = [];
      for (let length = 0; length < BATCH && index < count; index++) {
        const bytes = make(index);
        batch.push(bytes);
        length += bytes.length;
      }
      await this.#wire.write(Buffer.concat(batch));
    }
  }
}

/** The IDs in the NBD_REP_META_CONTEXT replies that were sent. */
function contextIdsOf(said: Buffer): number[] {
  const ids: number[] = [];
  for (let at = 0; at + 20 <= said.length; at += 20 + said.readUInt32BE(at + 16)) {
    const isContext = said.readUInt32BE(at + 12) === c.NBD_REP_META_CONTEXT;
    if (isContext && at + 24 <= said.length) ids.push(said.readUInt32BE(at + 20));
  }
  return ids;
}

function isList(steps: Step | readonly Step[]): steps is readonly Step[] {
  return Array.isArray(steps);
}
