// Formats bytes in nbddump's layout: sixteen bytes per line, repeated lines squashed to one `*`. Bytes are added in
// pieces of any length, zeroes as a count, so that a hole of a terabyte costs nothing.

import { COLOURS, type Paint } from './text.js';

const WIDTH = 16;
const ZERO_LINE = Buffer.alloc(WIDTH);
const HEX = Array.from({ length: 256 }, (_, byte) => `${byte.toString(16).padStart(2, '0')} `);

export class HexDump {
  readonly #size: bigint;
  readonly #paint: Paint;
  readonly #first: bigint;
  /** Offset of the line that is being filled. */
  #at: bigint;
  readonly #line = Buffer.alloc(WIDTH);
  #filled = 0;
  readonly #last = Buffer.alloc(WIDTH);
  #squashing = false;

  constructor(offset: bigint, size: bigint, paint: Paint) {
    this.#at = offset;
    this.#first = offset;
    this.#size = size;
    this.#paint = paint;
  }

  /** Adds bytes. Returns the text that can be printed. */
  add(bytes: Buffer): string {
    let text = '';
    let from = 0;
    while (from < bytes.length) {
      if (this.#filled === 0 && bytes.length - from >= WIDTH) {
        text += this.#whole(bytes.subarray(from, from + WIDTH));
        from += WIDTH;
      } else {
        const take = Math.min(WIDTH - this.#filled, bytes.length - from);
        bytes.copy(this.#line, this.#filled, from, from + take);
        this.#filled += take;
        from += take;
        if (this.#filled === WIDTH) {
          this.#filled = 0;
          text += this.#whole(this.#line);
        }
      }
    }
    return text;
  }

  /** Adds zeroes. Returns the text that can be printed. */
  zeroes(count: bigint): string {
    let text = '';
    let rest = count;
    while (rest > 0n) {
      const repeats = this.#filled === 0 && this.#at > this.#first && this.#last.equals(ZERO_LINE);
      // The line that reaches the end of the export is never squashed.
      const whole = (rest < this.#size - 1n - this.#at ? rest : this.#size - 1n - this.#at) / BigInt(WIDTH);
      if (repeats && whole > 0n) {
        if (!this.#squashing) text += this.#splat();
        this.#at += whole * BigInt(WIDTH);
        rest -= whole * BigInt(WIDTH);
      } else {
        const take = rest < BigInt(WIDTH - this.#filled) ? Number(rest) : WIDTH - this.#filled;
        text += this.add(ZERO_LINE.subarray(0, take));
        rest -= BigInt(take);
      }
    }
    return text;
  }

  /**
   * Returns the rest: a short last line. If a limit cut the line off, it is compared with the line before as if zeroes
   * followed, as nbddump does.
   */
  end(): string {
    if (this.#filled === 0) return '';
    this.#line.fill(0, this.#filled);
    const isSame = this.#at > this.#first && this.#line.equals(this.#last);
    if (isSame && this.#at + BigInt(WIDTH) < this.#size) return this.#squashing ? '' : this.#splat();
    return this.#show(this.#line.subarray(0, this.#filled));
  }

  #splat(): string {
    this.#squashing = true;
    return this.#paint.on ? '☆\n' : '*\n';
  }

  #whole(line: Buffer): string {
    const isSame = this.#at > this.#first && line.equals(this.#last);
    if (isSame && this.#at + BigInt(WIDTH) < this.#size) {
      this.#at += BigInt(WIDTH);
      return this.#squashing ? '' : this.#splat();
    }
    line.copy(this.#last);
    const text = this.#show(line);
    this.#at += BigInt(WIDTH);
    return text;
  }

  #show(line: Buffer): string {
    this.#squashing = false;
    const paint = this.#paint;
    const grey = paint.begin(COLOURS.grey);
    const pipe = paint.on ? '│' : '|';
    let text = `${paint.begin(COLOURS.green)}${this.#at.toString(16).padStart(10, '0')}${grey}: `;
    for (let at = 0; at < WIDTH; at++) {
      const byte = line[at];
      if (byte === undefined) text += at === line.length ? `${grey}   ` : '   ';
      else text += `${byte === 0 ? grey : paint.begin(COLOURS.brightBlue)}${HEX[byte] ?? ''}`;
      if (at === 7) text += ' ';
    }
    if (line.length === WIDTH) text += grey;
    text += pipe;
    for (const byte of line) text += this.#character(byte);
    return `${text}${grey}${' '.repeat(WIDTH - line.length)}${pipe}\n${paint.end}`;
  }

  #character(byte: number): string {
    const paint = this.#paint;
    const char = String.fromCharCode(byte);
    if (/[0-9A-Za-z]/.test(char)) return `${paint.begin(COLOURS.brightRed)}${char}`;
    if (byte >= 0x20 && byte < 0x7f) return `${paint.begin(COLOURS.brightMagenta)}${char}`;
    return `${paint.begin(COLOURS.grey)}${paint.on ? '·' : '.'}`;
  }
}
