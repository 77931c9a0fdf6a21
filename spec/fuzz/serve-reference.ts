// A second reading of proto.md's handshake from the server's side: which replies the bytes of a client must be
// answered with, and which session they lead to. Slow, with the whole stream in hand, sharing no line with lib/.

/** What is served. */
export interface Served {
  readonly fixed: boolean;
  readonly noZeroes: boolean;
  readonly maxOptions: number;
  readonly exports: readonly ServedName[];
}

export interface ServedName {
  readonly name: string;
  readonly description: string;
  readonly requireBlockSize: boolean;
  readonly contexts: readonly string[];
}

export interface ServeResult {
  /** 'session', 'left', 'violation' or 'cut short'. */
  ending: string;
  /** Every reply: the option it answers, its type, and of an information its type. */
  readonly replies: string[];
  /** The export, the style of replies and the contexts. */
  session: string;
}

const ERR = {
  ...{ UNSUP: 0x80000001, POLICY: 0x80000002, INVALID: 0x80000003, UNKNOWN: 0x80000006 },
  ...{ BLOCK_SIZE_REQD: 0x80000008, TOO_BIG: 0x80000009, EXT_HEADER_REQD: 0x8000000a },
} as const;
const MAX_STRING = 4096;
const MAX_DATA = 65536;
const MAX_LENGTH = 2 ** 26;

class Violation extends Error {}
class Starved extends Error {}
/** An option whose data make no sense. */
class Refused extends Error {
  readonly type: number;
  constructor(type: number) {
    super();
    this.type = type;
  }
}

/** The data of one option, read from front to back. */
class Data {
  readonly #bytes: Buffer;
  at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get left(): number {
    return this.#bytes.length - this.at;
  }

  uint(width: 2 | 4): number {
    if (this.left < width) throw new Refused(ERR.INVALID);
    this.at += width;
    return this.#bytes.readUIntBE(this.at - width, width);
  }

  /** A string with its length in front; `behind` bytes must be left for what follows. */
  string(behind: number): string {
    const length = this.uint(4);
    if (length > this.left - behind) throw new Refused(ERR.INVALID);
    if (length > MAX_STRING) throw new Refused(behind > 0 ? ERR.TOO_BIG : ERR.INVALID);
    this.at += length;
    return this.#bytes.toString('utf8', this.at - length, this.at);
  }
}

class Server {
  readonly result: ServeResult = { ending: 'session', replies: [], session: '' };
  readonly #served: Served;
  readonly #bytes: Buffer;
  #at = 0;
  #structured = false;
  #extended = false;
  #contexts: { name: string; selected: readonly string[] } | null = null;

  constructor(served: Served, bytes: Buffer) {
    this.#served = served;
    this.#bytes = bytes;
  }

  #take(length: number): Buffer {
    if (this.#at + length > this.#bytes.length) throw new Starved();
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  run(): void {
    const { fixed, noZeroes, maxOptions } = this.#served;
    const offered = (fixed ? 1 : 0) + (noZeroes ? 2 : 0);
    const flags = this.#take(4).readUInt32BE(0);
    if (flags > 3 || (flags & offered) !== flags) throw new Violation();
    for (let count = 1; ; count++) {
      const header = this.#take(16);
      if (count > maxOptions) throw new Violation();
      if (header.toString('latin1', 0, 8) !== 'IHAVEOPT') throw new Violation();
      const [option, length] = [header.readUInt32BE(8), header.readUInt32BE(12)];
      if (length > MAX_LENGTH) throw new Violation();
      if (option === 1) {
        this.#exportName(length);
        return;
      }
      if (!fixed) throw new Violation();
      const data = this.#take(length);
      if (option === 2) {
        this.#say(option, 1);
        this.result.ending = 'left';
        return;
      }
      try {
        if (this.#answer(option, data)) return;
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        this.#say(option, error.type);
      }
    }
  }

  #say(option: number, type: number, info?: number): void {
    this.result.replies.push(`${option} ${type}${info === undefined ? '' : ` ${info}`}`);
  }

  #find(name: string): ServedName | undefined {
    return this.#served.exports.find((each) => each.name === name);
  }

  #open(name: string): void {
    const style = this.#extended ? 'extended' : this.#structured ? 'structured' : 'simple';
    const selected = this.#contexts?.name === name ? this.#contexts.selected : [];
    this.result.session = `${JSON.stringify(name)} ${style} ${selected.map((each, index) => `${index + 1}=${each}`).join()}`;
  }

  #exportName(length: number): void {
    if (length > MAX_STRING) throw new Violation();
    const name = this.#take(length).toString('utf8');
    const found = this.#find(name);
    if (this.#extended || found === undefined || found.requireBlockSize) throw new Violation();
    this.#open(name);
  }

  /** True when the session begins. */
  #answer(option: number, data: Buffer): boolean {
    // "Issuing this command replaces all previously-set metadata contexts (including when this command fails)".
    if (option === 10) this.#contexts = null;
    if (![3, 5, 6, 7, 8, 9, 10, 11].includes(option)) throw new Refused(ERR.UNSUP);
    if (option === 5) throw new Refused(ERR.POLICY);
    if ([3, 8, 11].includes(option) && data.length > 0) throw new Refused(ERR.INVALID);
    if (data.length > MAX_DATA) throw new Refused(ERR.TOO_BIG);
    if (option === 6 || option === 7) return this.#information(option, new Data(data));
    if (option === 9 || option === 10) this.#metaContexts(option, new Data(data));
    else if (option === 3) for (const _each of this.#served.exports) this.#say(option, 2);
    else if (option === 11) this.#extended = true;
    else if (this.#extended) throw new Refused(ERR.EXT_HEADER_REQD);
    else this.#structured = true;
    this.#say(option, 1);
    return false;
  }

  #information(option: number, data: Data): boolean {
    const name = data.string(2);
    const wanted: number[] = [];
    const count = data.uint(2);
    if (data.left !== count * 2) throw new Refused(ERR.INVALID);
    while (data.left > 0) wanted.push(data.uint(2));
    const found = this.#find(name);
    if (found === undefined) throw new Refused(ERR.UNKNOWN);
    const refused = found.requireBlockSize && !wanted.includes(3);
    if (!refused) this.#say(option, 3, 0);
    if (wanted.includes(1)) this.#say(option, 3, 1);
    if (wanted.includes(2) && found.description !== '') this.#say(option, 3, 2);
    if (refused || wanted.includes(3)) this.#say(option, 3, 3);
    if (refused) throw new Refused(ERR.BLOCK_SIZE_REQD);
    this.#say(option, 1);
    if (option === 7) this.#open(name);
    return option === 7;
  }

  #metaContexts(option: number, data: Data): void {
    if (!this.#structured && !this.#extended) throw new Refused(ERR.INVALID);
    const name = data.string(4);
    const count = data.uint(4);
    const queries: string[] = [];
    while (queries.length < count) queries.push(data.string(0));
    if (data.left > 0) throw new Refused(ERR.INVALID);
    const found = this.#find(name);
    if (found === undefined) throw new Refused(ERR.UNKNOWN);
    const isMeant = (context: string): boolean =>
      option === 10
        ? queries.includes(context)
        : count === 0 ||
          queries.some((query) => query === context || (query.endsWith(':') && context.startsWith(query)));
    const meant = found.contexts.filter(isMeant);
    for (const _context of meant) this.#say(option, 4);
    if (option === 10) {
      // IDs are given in the order of the client's wishes.
      const selected = [...new Set(queries)].filter((query) => found.contexts.includes(query));
      this.#contexts = { name, selected };
    }
  }
}

export function expectServe(served: Served, bytes: Buffer): ServeResult {
  const server = new Server(served, bytes);
  try {
    server.run();
  } catch (error) {
    if (error instanceof Violation) server.result.ending = 'violation';
    else if (error instanceof Starved) server.result.ending = 'cut short';
    else throw error;
  }
  return server.result;
}
