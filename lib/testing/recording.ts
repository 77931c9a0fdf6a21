// Everything that a client sent to a scripted peer on one connection, and how it violated the protocol.

/** An option as it was received. */
export interface ReceivedOption {
  /** NBD_OPT_*. */
  readonly option: number;
  /** The option's data, without its header. */
  readonly data: Buffer;
  /** Whether it was sent inside TLS. */
  readonly tls: boolean;
}

/** A command as it was received. */
export interface ReceivedCommand {
  /** NBD_CMD_*. */
  readonly type: number;
  /** NBD_CMD_FLAG_*. */
  readonly flags: number;
  /** The client's cookie. */
  readonly cookie: bigint;
  /** First byte of the range. */
  readonly offset: bigint;
  /** The length field: number of bytes of the range or, with PAYLOAD_LEN, of the payload. */
  readonly length: bigint;
  /** Whether it had an extended header. */
  readonly extended: boolean;
  /** Whether it was sent inside TLS. */
  readonly tls: boolean;
}

/** What the client had sent when a scripted reply was finished. */
export interface RecordingMark {
  /** Number of options. */
  readonly options: number;
  /** Number of commands. */
  readonly commands: number;
  /** Value of {@link PeerRecording.bytesReceived}. */
  readonly bytes: number;
}

const RAW_LIMIT = 256 * 1024;
const PAYLOAD_LIMIT = 64 * 1024 * 1024;

/** What a scripted peer received on one connection. */
export class PeerRecording {
  /** The client flags that followed the greeting; undefined until they have arrived. */
  clientFlags: number | undefined;
  /** The options, in order. */
  readonly options: ReceivedOption[] = [];
  /** The commands, in order. */
  readonly commands: ReceivedCommand[] = [];
  /** Violations of the protocol by the client: pipelined options, cookies reused in flight, bytes after DISC … */
  readonly violations: string[] = [];
  /** Whether TLS has been established. */
  tls = false;
  /** Whether the handshake is over. */
  inTransmission = false;
  /** State of the connection: open, ended by the client's FIN, broken, or closed by the peer's script. */
  ending: 'open' | 'fin' | 'error' | 'closed' = 'open';
  /** The code of the error that broke the connection: `'ECONNRESET'`, `'EPIPE'` … */
  errorCode: string | undefined;
  /** Bytes received, counted on the wire. */
  bytesReceived = 0;
  /** Set after each scripted reply, to the state at that moment. */
  mark: RecordingMark | undefined;
  /** Whether the connection has ended. */
  isOver = false;
  /** Resolves when the connection has ended. */
  readonly done: Promise<void>;
  readonly #raw: Buffer[] = [];
  #rawLength = 0;
  readonly #payloads = new Map<ReceivedCommand, Buffer>();
  #payloadLength = 0;
  readonly #finish: () => void;

  /** Creates an empty recording, which the peer fills. */
  constructor() {
    let finish = (): void => undefined;
    this.done = new Promise((resolve) => {
      finish = resolve;
    });
    this.#finish = finish;
  }

  /** The first 256 KiB as they were on the wire: TLS records if TLS is used. */
  get raw(): Buffer {
    return Buffer.concat(this.#raw);
  }

  /** The payload of a write; undefined if it exceeded the 64 MiB that are kept in total. */
  payloadOf(command: ReceivedCommand): Buffer | undefined {
    return this.#payloads.get(command);
  }

  /** Records received bytes. For the peer's use, like the methods below. */
  received(bytes: Buffer): void {
    this.bytesReceived += bytes.length;
    if (this.#rawLength >= RAW_LIMIT) return;
    const kept = Buffer.from(bytes.subarray(0, RAW_LIMIT - this.#rawLength));
    this.#raw.push(kept);
    this.#rawLength += kept.length;
  }

  /** Records the payload of a command. */
  keepPayload(command: ReceivedCommand, payload: Buffer): void {
    this.#payloadLength += payload.length;
    if (this.#payloadLength <= PAYLOAD_LIMIT) this.#payloads.set(command, payload);
  }

  /** Sets {@link mark}. */
  setMark(): void {
    this.mark = { options: this.options.length, commands: this.commands.length, bytes: this.bytesReceived };
  }

  /** Records the end of the connection. */
  finish(): void {
    this.isOver = true;
    this.#finish();
  }
}
