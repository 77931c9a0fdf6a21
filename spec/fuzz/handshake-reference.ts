// A second reading of proto.md's handshake, from the client's side: what a client that requests these things must make
// of any bytes. Slow, with the whole stream in hand, and sharing no line with lib/.

/** What the user requests. */
export interface Wishes {
  readonly exportName: string;
  readonly structuredReplies: boolean;
  readonly extendedHeaders: boolean;
  readonly metaContexts: readonly string[];
  readonly fullInfo: boolean;
  /** TLS where the server agrees. */
  readonly tls: boolean;
  /** In option mode: the options that are sent before the export is opened. */
  readonly first: 'go' | 'list' | 'info' | 'list-meta';
}

/** What comes of it. Everything but the ending and the options is there after 'transmission' only. */
export interface HandshakeResult {
  /** 'transmission', 'violation', 'cut short', 'tls', or the class and the errno name of a refusal. */
  ending: string;
  /** Numbers of the options that were sent. */
  readonly options: number[];
  consumed: number;
  protocol?: string;
  size?: bigint;
  flags?: number;
  blockSizes?: string;
  name?: string | null;
  description?: string | null;
  structured?: boolean;
  extended?: boolean;
  contexts?: string;
  /** What the list and the contexts were, as text. */
  listed?: string;
}

class Violation extends Error {}
class Starved extends Error {}
class Tls extends Error {}
class Refused extends Error {}

const [EXPORT_NAME, LIST, STARTTLS, INFO, GO, STRUCTURED, LIST_META, SET_META, EXTENDED] = [
  1, 3, 5, 6, 7, 8, 9, 10, 11,
];
const ACK = 1;
const MAX_STRING = 4096;
const OPTION_REPLY_MAGIC = 0x3e889045565a9n;
const UNSUP = 1;
const SHUTDOWN = 7;
const CODES: Readonly<Record<number, string>> = {
  ...{ 1: 'ENOTSUP', 2: 'EACCES', 3: 'EINVAL', 4: 'ENOTSUP', 5: 'ENOTSUP', 6: 'ENOENT', 7: 'ESHUTDOWN', 8: 'EINVAL' },
  ...{ 9: 'EINVAL', 10: 'ENOTSUP' },
};

/** A reply that is not a refusal, or the number of one. */
type Reply = { readonly type: number; readonly length: number } | { readonly refused: number };

class Client {
  readonly result: HandshakeResult = { ending: 'transmission', options: [], consumed: 0 };
  readonly #bytes: Buffer;
  readonly #wishes: Wishes;
  #fixed = false;
  #noZeroes = false;
  #structured = false;
  #extended = false;
  #contexts: Map<number, string> | null = null;

  constructor(wishes: Wishes, bytes: Buffer) {
    this.#wishes = wishes;
    this.#bytes = bytes;
  }

  #take(length: number): Buffer {
    const from = this.result.consumed;
    if (from + length > this.#bytes.length) throw new Starved();
    this.result.consumed += length;
    return this.#bytes.subarray(from, from + length);
  }

  #u16 = (): number => this.#take(2).readUInt16BE(0);
  #u32 = (): number => this.#take(4).readUInt32BE(0);
  #u64 = (): bigint => this.#take(8).readBigUInt64BE(0);

  run(): void {
    if (this.#take(8).toString('latin1') !== 'NBDMAGIC') throw new Violation();
    const version = this.#take(8);
    if (version.toString('hex') === '0000420281861253') {
      this.#oldstyle();
      return;
    }
    if (version.toString('latin1') !== 'IHAVEOPT') throw new Violation();
    const flags = this.#u16();
    this.#fixed = (flags & 1) === 1;
    this.#noZeroes = (flags & 2) === 2;
    this.result.protocol = this.#fixed ? 'newstyle-fixed' : 'newstyle';
    if (this.#fixed) this.#features();
    if (this.#fixed && this.#wishes.first !== 'go') this.#question();
    if (this.#structured && this.#wishes.metaContexts.length > 0) {
      const refused = this.#setContexts();
      if (refused === SHUTDOWN) throw new Refused(CODES[refused]);
    }
    this.#open();
  }

  #oldstyle(): void {
    this.result.protocol = 'oldstyle';
    const size = this.#u64();
    const [global, flags] = [this.#u16(), this.#u16()];
    this.#take(124);
    if (global !== 0) throw new Violation();
    // The one export of such a server has no name; another one must not be taken for it.
    if (this.#wishes.exportName !== '') throw new Error('NbdConnectionError ENOTSUP');
    this.#know(size, flags);
  }

  #send(option: number): void {
    this.result.options.push(option);
  }

  #reply(option: number, expected: number): Reply {
    if (this.#take(8).toString('hex') !== '0003e889045565a9') throw new Violation();
    const [answered, type, length] = [this.#u32(), this.#u32(), this.#u32()];
    if (answered !== option) throw new Violation();
    if (type >= 2 ** 31) {
      if (length > MAX_STRING) throw new Violation();
      this.#take(length);
      return { refused: type - 2 ** 31 };
    }
    if ((type !== ACK && type !== expected) || (type === ACK && length > 0) || length > 2 ** 26) throw new Violation();
    return { type, length };
  }

  #agree(option: number): boolean {
    this.#send(option);
    const reply = this.#reply(option, ACK);
    // "The client MUST initiate a soft disconnect": whatever was requested, the negotiation ends.
    if ('refused' in reply && reply.refused === SHUTDOWN) throw new Refused(codeOf(SHUTDOWN));
    return 'type' in reply;
  }

  #features(): void {
    const { tls, structuredReplies, extendedHeaders } = this.#wishes;
    if (tls && this.#agree(STARTTLS)) throw new Tls();
    if (structuredReplies && extendedHeaders) this.#extended = this.#agree(EXTENDED);
    if (structuredReplies) this.#structured = this.#extended || this.#agree(STRUCTURED);
  }

  #text(length: number): string {
    if (length > MAX_STRING) throw new Violation();
    return this.#take(length).toString('utf8');
  }

  /** All replies up to the ACK; the number of the refusal that came in its place. */
  #replies(option: number, expected: number, most: number, each: (length: number) => void): number | null {
    this.#send(option);
    for (let count = 0; ; count++) {
      const reply = this.#reply(option, expected);
      if ('refused' in reply) return reply.refused;
      if (reply.type === ACK) return null;
      if (count === most) throw new Violation();
      each(reply.length);
    }
  }

  #question(): void {
    const found: string[] = [];
    const { first } = this.#wishes;
    let refused: number | null;
    if (first === 'info') refused = this.#information(INFO);
    else if (first === 'list') {
      refused = this.#replies(LIST, 2, 1_000_000, (length) => {
        if (length < 4) throw new Violation();
        const named = this.#u32();
        if (named > length - 4) throw new Violation();
        found.push(`${this.#text(named)}: ${this.#text(length - 4 - named)}`);
      });
    } else {
      refused = this.#replies(LIST_META, 4, 1000, (length) => {
        if (length < 5) throw new Violation();
        this.#u32();
        found.push(this.#text(length - 4));
      });
    }
    this.result.listed = refused === null ? JSON.stringify(found) : codeOf(refused);
  }

  #setContexts(): number | null {
    const contexts = new Map<number, string>();
    const refused = this.#replies(SET_META, 4, 1000, (length) => {
      if (length < 5) throw new Violation();
      const id = this.#u32();
      const name = this.#text(length - 4);
      // Reported twice under the same ID and name, it is one context.
      if ((contexts.get(id) ?? name) !== name) throw new Violation();
      contexts.set(id, name);
    });
    this.#contexts = refused === null ? contexts : null;
    return refused;
  }

  #information(option: number): number | null {
    let size = null as bigint | null;
    let flags = 0;
    let blockSizes = '';
    let name: string | null = null;
    let description: string | null = null;
    const refused = this.#replies(option, 3, 64, (length) => {
      if (length < 2) throw new Violation();
      const type = this.#u16();
      if ((type === 0 && length !== 12) || (type === 3 && length !== 14)) throw new Violation();
      if (type === 0) {
        size = this.#u64();
        flags = this.#u16();
        if (flags === 0) throw new Violation();
      } else if (type === 1) name = this.#text(length - 2);
      else if (type === 2) description = this.#text(length - 2);
      else if (type === 3) blockSizes = usableSizes(this.#u32(), this.#u32(), this.#u32());
      else this.#take(length - 2);
    });
    if (refused === null) {
      if (size === null) throw new Violation();
      this.#know(size, flags);
      Object.assign(this.result, { blockSizes, name, description });
    } else {
      // What had been selected for the export goes with it.
      this.#contexts = null;
    }
    return refused;
  }

  #open(): void {
    if (this.#fixed) {
      const refused = this.#information(GO);
      if (refused === null) return;
      // "After extended headers a client MUST NOT use NBD_OPT_EXPORT_NAME".
      if (refused !== UNSUP || this.#extended) throw new Refused(codeOf(refused));
    }
    this.#send(EXPORT_NAME);
    const [size, flags] = [this.#u64(), this.#u16()];
    if (size === OPTION_REPLY_MAGIC) this.#misplaced(flags);
    this.#know(size, flags);
    Object.assign(this.result, { blockSizes: '', name: null, description: null });
    if (!this.#noZeroes) this.#take(124);
  }

  /** Some servers refuse an EXPORT_NAME by an option reply, whose magic stands where the size would. */
  #misplaced(high: number): never {
    const [option, type, length] = [high * 65536 + this.#u16(), this.#u32(), this.#u32()];
    if (option !== EXPORT_NAME || type < 2 ** 31 || length > MAX_STRING) throw new Violation();
    this.#take(length);
    throw new Refused(codeOf(type - 2 ** 31));
  }

  /** Flags that cannot be true are taken away. */
  #know(size: bigint, flags: number): void {
    if (flags === 0) throw new Violation();
    const df = this.#structured ? 0 : 0x80;
    const statusPayload = this.#extended ? 0 : 0x1000;
    const fastZero = (flags & 0x40) === 0 ? 0x800 : 0;
    Object.assign(this.result, { size, flags: flags & ~(df | statusPayload | fastZero) });
    this.result.blockSizes ??= '';
    this.result.name ??= null;
    this.result.description ??= null;
  }

  finish(): void {
    this.result.structured = this.#structured;
    this.result.extended = this.#extended;
    this.result.contexts =
      this.#contexts === null || this.#contexts.size === 0 ? 'none' : JSON.stringify([...this.#contexts]);
  }
}

const codeOf = (refused: number): string => CODES[refused] ?? 'EINVAL';

/** '' where the three break a rule: a power of 2 up to 64 KiB, a power of 2 from 512, a multiple of the first. */
function usableSizes(minimum: number, preferred: number, maximum: number): string {
  const powers = Array.from({ length: 32 }, (_, bit) => 2 ** bit);
  const isGood =
    powers.includes(minimum) &&
    powers.includes(preferred) &&
    [minimum <= 65536, preferred >= 512, minimum <= preferred, preferred <= maximum].every(Boolean) &&
    (maximum === 0xffff_ffff || maximum % minimum === 0);
  return isGood ? `${minimum} ${preferred} ${maximum}` : '';
}

export function expectHandshake(wishes: Wishes, bytes: Buffer): HandshakeResult {
  const client = new Client(wishes, bytes);
  try {
    client.run();
    client.finish();
  } catch (error) {
    if (error instanceof Violation) client.result.ending = 'violation';
    else if (error instanceof Starved) client.result.ending = 'cut short';
    else if (error instanceof Tls) client.result.ending = 'tls';
    else if (error instanceof Refused) client.result.ending = `NbdOptionError ${error.message}`;
    else if ((error as Error).message.startsWith('NbdConnectionError')) client.result.ending = (error as Error).message;
    else throw error;
  }
  return client.result;
}
