// Everything that a client sent to a scripted peer on one connection, and what of it the protocol forbids.

/** An option as it came. */
export interface ReceivedOption {
  /** NBD_OPT_*. */
  readonly option: number;
  /** The data of the option. */
  readonly data: Buffer;
  /** True when it came through TLS. */
  readonly tls: boolean;
}

/** A command as it came. */
export interface ReceivedCommand {
  /** NBD_CMD_*. */
  readonly type: number;
  /** NBD_CMD_FLAG_*. */
  readonly flags: number;
  /** Cookie, unsigned. */
  readonly cookie: bigint;
  /** First byte. */
  readonly offset: bigint;
  /** Bytes. */
  readonly length: bigint;
  /** True when the header was an extended one. */
  readonly extended: boolean;
  /** True when it came through TLS. */
  readonly tls: boolean;
}

/** How far the client was when a scripted answer had been given. */
export interface RecordingMark {
  /** Number of options received. */
  readonly options: number;
  /** Number of commands received. */
  readonly commands: number;
  /** Of {@link PeerRecording.bytesReceived}. */
  readonly bytes: number;
}

const RAW_LIMIT = 256 * 1024;
const PAYLOAD_LIMIT = 64 * 1024 * 1024;

/** What a scripted peer saw of one connection. */
export class PeerRecording {
  /** The flags that answered the greeting. */
  clientFlags: number | undefined;
  /** Options, in order of arrival. */
  readonly options: ReceivedOption[] = [];
  /** Commands, in order of arrival. */
  readonly commands: ReceivedCommand[] = [];
  /** What the client may not do and did, in words: pipelined options, cookies reused in flight, bytes after DISC … */
  readonly violations: string[] = [];
  /** True once TLS is up. */
  tls = false;
  /** True once the handshake is over. */
  inTransmission = false;
  /** How the connection stands: open, ended by the client's FIN, broken, or closed by the peer's own script. */
  ending: 'open' | 'fin' | 'error' | 'closed' = 'open';
  /** The code of what broke it: `'ECONNRESET'`, `'EPIPE'` … */
  errorCode: string | undefined;
  /** Bytes that came, as they were on the wire. */
  bytesReceived = 0;
  /** Set when a scripted answer has been given; the last one counts. */
  mark: RecordingMark | undefined;
  /** True once the connection is over. */
  isOver = false;
  /** Resolves when the connection is over. */
  readonly done: Promise<void>;
  readonly #raw: Buffer[] = [];
  #rawLength = 0;
  readonly #payloads = new Map<ReceivedCommand, Buffer>();
  #payloadLength = 0;
  readonly #finish: () => void;

  constructor() {
    let finish = (): void => undefined;
    this.done = new Promise((resolve) => {
      finish = resolve;
    });
    this.#finish = finish;
  }

  /** The first 256 KiB as they were on the wire: with TLS, its records. */
  get raw(): Buffer {
    return Buffer.concat(this.#raw);
  }

  /** The payload of a write, unless more than 64 MiB had come before it. */
  payloadOf(command: ReceivedCommand): Buffer | undefined {
    return this.#payloads.get(command);
  }

  /** Bytes have come. For the peer's use, like the rest of the methods. */
  received(bytes: Buffer): void {
    this.bytesReceived += bytes.length;
    if (this.#rawLength >= RAW_LIMIT) return;
    const kept = Buffer.from(bytes.subarray(0, RAW_LIMIT - this.#rawLength));
    this.#raw.push(kept);
    this.#rawLength += kept.length;
  }

  /** Keeps the payload of a write. For the peer itself. */
  keepPayload(command: ReceivedCommand, payload: Buffer): void {
    this.#payloadLength += payload.length;
    if (this.#payloadLength <= PAYLOAD_LIMIT) this.#payloads.set(command, payload);
  }

  /** Sets {@link mark}. For the peer itself. */
  setMark(): void {
    this.mark = { options: this.options.length, commands: this.commands.length, bytes: this.bytesReceived };
  }

  /** Marks the connection as over. For the peer itself. */
  finish(): void {
    this.isOver = true;
    this.#finish();
  }
}
