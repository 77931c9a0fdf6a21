// The script of one connection, and what it means where it is silent.

import type { TlsOptions } from 'node:tls';

import { DEFAULT_FLAGS, DEFAULT_SIZE, type U64 } from './messages.js';
import type { ReceivedOption } from './recording.js';
import type { CommandScript, OptionScript, PeerRequest, Script } from './steps.js';

/** What a scripted peer does on one connection. Whatever is left out is done right. */
export interface PeerScript {
  /** Flags of the greeting; FIXED_NEWSTYLE and NO_ZEROES unless told. */
  readonly handshakeFlags?: number;
  /** The export's size; 1 MiB unless told. */
  readonly size?: U64;
  /** The export's transmission flags; {@link DEFAULT_FLAGS} unless told. */
  readonly flags?: number;
  /** Minimum, preferred and maximum block size to advertise; nothing is unless told. */
  readonly blockSize?: readonly [minimum: number, preferred: number, maximum: number];
  /** Whether NBD_OPT_STRUCTURED_REPLY and the meta context options are granted; they are unless told. */
  readonly structuredReplies?: boolean;
  /** Whether NBD_OPT_EXTENDED_HEADERS is granted; it is not unless told. */
  readonly extendedHeaders?: boolean;
  /** Names for NBD_OPT_LIST; `''` and `'a'` unless told. */
  readonly exports?: readonly string[];
  /** Certificate, key and the rest for `tls()` steps. */
  readonly tls?: TlsOptions;
  /** Instead of the greeting. */
  readonly greet?: Script<[]>;
  /** Instead of the answers to options. */
  readonly on?: readonly OptionScript[];
  /** When the handshake is over, before any command. */
  readonly onTransmission?: Script<[]>;
  /** Instead of the answer to a command, or to several one after the other; a function answers the first one. */
  readonly reply?: CommandScript | readonly CommandScript[] | Script<PeerRequest[]>;
  /** After the header of the first write was read, before its payload; it counts as that write's answer. */
  readonly afterWriteHeader?: Script<[PeerRequest]>;
  /** Instead of closing after NBD_CMD_DISC. */
  readonly onDisconnect?: Script<[PeerRequest]>;
}

/** A script with every silence filled in; counts what was used. */
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

  /** The steps for an option that has just come. */
  forOption({ option }: ReceivedOption): Script<[ReceivedOption]> | undefined {
    const nth = (this.#seen.get(option) ?? 0) + 1;
    this.#seen.set(option, nth);
    return this.#on.find((script) => script.option === option && (script.nth ?? nth) === nth)?.steps;
  }

  /** The script that waits for a command of this type, if one still does. */
  forCommand(type: number): CommandScript | undefined {
    return this.#replies.find((script) => (script.command ?? type) === type);
  }

  /** That script has had its turn. */
  used(script: CommandScript): void {
    this.#replies.splice(this.#replies.indexOf(script), 1);
  }

  /** The steps for the first write's header; given once. */
  takeAfterWriteHeader(): Script<[PeerRequest]> | undefined {
    const steps = this.#afterWriteHeader;
    this.#afterWriteHeader = undefined;
    return steps;
  }
}

function commandScripts(reply: PeerScript['reply']): CommandScript[] {
  if (reply === undefined) return [];
  if (typeof reply === 'function' || reply instanceof Uint8Array) return [{ steps: reply }];
  if (Array.isArray(reply)) {
    const list = reply as readonly unknown[];
    return list.every(isCommandScript) ? [...list] : [{ steps: reply as CommandScript['steps'] }];
  }
  return [isCommandScript(reply) ? reply : { steps: reply as CommandScript['steps'] }];
}

function isCommandScript(value: unknown): value is CommandScript {
  return typeof value === 'object' && value !== null && 'steps' in value;
}
