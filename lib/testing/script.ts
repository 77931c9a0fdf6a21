// The script of one connection, and its defaults.

import type { TlsOptions } from 'node:tls';

import { DEFAULT_FLAGS, DEFAULT_SIZE, type U64 } from './messages.js';
import type { ReceivedOption } from './recording.js';
import type { CommandScript, OptionScript, PeerRequest, Script } from './steps.js';

/** The behaviour of a scripted peer on one connection. Everything that is left out follows the protocol. */
export interface PeerScript {
  /** Flags of the greeting. Default FIXED_NEWSTYLE and NO_ZEROES. */
  readonly handshakeFlags?: number | undefined;
  /** The export's size in bytes. Default 1 MiB. */
  readonly size?: U64 | undefined;
  /** The export's transmission flags. Default {@link DEFAULT_FLAGS}. */
  readonly flags?: number | undefined;
  /** Minimum, preferred and maximum block size to advertise. Default none. */
  readonly blockSize?: readonly [minimum: number, preferred: number, maximum: number] | undefined;
  /** Whether NBD_OPT_STRUCTURED_REPLY and the meta context options are accepted. Default true. */
  readonly structuredReplies?: boolean | undefined;
  /** Whether NBD_OPT_EXTENDED_HEADERS is accepted. Default false. */
  readonly extendedHeaders?: boolean | undefined;
  /** Export names for NBD_OPT_LIST. Default `''` and `'a'`. */
  readonly exports?: readonly string[] | undefined;
  /** Options of node:tls (certificate, key …) for `tls()` steps. Default `{}`. */
  readonly tls?: TlsOptions | undefined;
  /** Replaces the greeting. */
  readonly greet?: Script<[]> | undefined;
  /** Replaces the replies to options. */
  readonly on?: readonly OptionScript[] | undefined;
  /** Runs when the handshake is over, before any command. */
  readonly onTransmission?: Script<[]> | undefined;
  /** Replaces the reply to a command, or to several one after another; a function replies to the first one. */
  readonly reply?: CommandScript | readonly CommandScript[] | Script<PeerRequest[]> | undefined;
  /** Runs between the header and the payload of the first write, and replaces the reply to it. */
  readonly afterWriteHeader?: Script<[PeerRequest]> | undefined;
  /** Replaces closing the connection after NBD_CMD_DISC. */
  readonly onDisconnect?: Script<[PeerRequest]> | undefined;
}

/** A script with all defaults; keeps track of the parts that were used. */
export class Plan {
  readonly handshakeFlags: number;
  readonly size: bigint;
  readonly flags: number;
  readonly blockSize: PeerScript['blockSize'];
  readonly structuredReplies: boolean;
  readonly extendedHeaders: boolean;
  readonly exports: readonly string[];
  readonly tls: TlsOptions;
  readonly greet: Script<[]> | undefined;
  readonly onTransmission: Script<[]> | undefined;
  readonly onDisconnect: Script<[PeerRequest]> | undefined;
  readonly #on: readonly OptionScript[];
  readonly #seen = new Map<number, number>();
  readonly #replies: CommandScript[];
  #afterWriteHeader: Script<[PeerRequest]> | undefined;

  constructor(script: PeerScript) {
    this.handshakeFlags = script.handshakeFlags ?? 3;
    this.size = BigInt.asUintN(64, BigInt(script.size ?? DEFAULT_SIZE));
    this.flags = script.flags ?? DEFAULT_FLAGS;
    this.blockSize = script.blockSize;
    this.structuredReplies = script.structuredReplies ?? true;
    this.extendedHeaders = script.extendedHeaders ?? false;
    this.exports = script.exports ?? ['', 'a'];
    this.tls = script.tls ?? {};
    this.greet = script.greet;
    this.onTransmission = script.onTransmission;
    this.onDisconnect = script.onDisconnect;
    this.#on = script.on ?? [];
    this.#replies = commandScripts(script.reply);
    this.#afterWriteHeader = script.afterWriteHeader;
  }

  /** The steps for an option that has just arrived. */
  forOption({ option }: ReceivedOption): Script<[ReceivedOption]> | undefined {
    const nth = (this.#seen.get(option) ?? 0) + 1;
    this.#seen.set(option, nth);
    return this.#on.find((script) => script.option === option && (script.nth ?? nth) === nth)?.steps;
  }

  /** The first unused script for a command of this type. */
  forCommand(type: number): CommandScript | undefined {
    return this.#replies.find((script) => (script.command ?? type) === type);
  }

  /** Marks a script as used. */
  used(script: CommandScript): void {
    this.#replies.splice(this.#replies.indexOf(script), 1);
  }

  /** The steps for the first write's header; undefined after the first call. */
  takeAfterWriteHeader(): Script<[PeerRequest]> | undefined {
    const steps = this.#afterWriteHeader;
    this.#afterWriteHeader = undefined;
    return steps;
  }
}

function commandScripts(reply: PeerScript['reply']): CommandScript[] {
  if (reply === undefined) return [];
  if (typeof reply === 'function' || ArrayBuffer.isView(reply)) return [{ steps: reply }];
  if (Array.isArray(reply)) {
    const list = reply as readonly unknown[];
    return list.every(isCommandScript) ? [...list] : [{ steps: reply as CommandScript['steps'] }];
  }
  return [isCommandScript(reply) ? reply : { steps: reply as CommandScript['steps'] }];
}

function isCommandScript(value: unknown): value is CommandScript {
  return typeof value === 'object' && value !== null && 'steps' in value;
}
