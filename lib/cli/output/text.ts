// Formats sizes, strings and colours as libnbd's tools do, and parses the sizes and numbers of options.

import { CliError, UsageError } from '../errors.js';
import { visibleJson } from '../../util/visible.js';

const SUFFIXES = ['', 'K', 'M', 'G', 'T', 'P', 'E'];

/** A size with the largest suffix that is exact: `1M`, `3K`, `513`. */
export function humanSize(bytes: bigint): string {
  let value = bytes;
  let at = 0;
  while (value !== 0n && (value & 1023n) === 0n && at < SUFFIXES.length - 1) {
    value >>= 10n;
    at++;
  }
  return `${value}${SUFFIXES[at] ?? ''}`;
}

/** `1048576 (1M)`; only the number if it has no exact suffix. */
export function sizeWithSuffix(bytes: bigint): string {
  const human = humanSize(bytes);
  return human === String(bytes) ? human : `${bytes} (${human})`;
}

/** Three digits and a unit, for people: `1.50 GiB`. */
export function roundSize(bytes: number | bigint): string {
  let value = Number(bytes);
  let at = 0;
  while (value >= 1024 && at < SUFFIXES.length - 1) {
    value /= 1024;
    at++;
  }
  const unit = at === 0 ? 'B' : `${SUFFIXES[at] ?? ''}iB`;
  return `${at === 0 || value >= 100 ? value.toFixed(0) : value.toPrecision(3)} ${unit}`;
}

/** `1 export`, `2 exports`. */
export const counted = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? '' : 's'}`;

/** `1:02:03`, `2:03`, `0:03`. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return '-:--';
  const whole = Math.max(0, Math.round(seconds));
  const pad = (value: number): string => String(value).padStart(2, '0');
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  return hours > 0 ? `${hours}:${pad(minutes)}:${pad(whole % 60)}` : `${minutes}:${pad(whole % 60)}`;
}

const UNITS: Readonly<Record<string, bigint>> = {
  b: 1n,
  s: 512n,
  k: 1n << 10n,
  m: 1n << 20n,
  g: 1n << 30n,
  t: 1n << 40n,
  p: 1n << 50n,
  e: 1n << 60n,
};

/** Parses a number of bytes with an optional suffix, as nbdkit does: `1M`, `512`, `2s`. */
export function parseSize(option: string, text: string): bigint {
  const match = /^(\d+)([bskmgtpe]?)$/i.exec(text.trim());
  if (match === null) {
    throw new UsageError(`--${option}: could not parse: ${text}`, {
      hint: 'a size is a number with an optional suffix k, M, G, T, P or E',
    });
  }
  const bytes = BigInt(match[1] ?? '0') * (UNITS[(match[2] ?? '').toLowerCase() || 'b'] ?? 1n);
  if (bytes >= 1n << 63n) throw new UsageError(`--${option}: too large: ${text}`);
  return bytes;
}

/** Parses a size that must be a safe integer. */
export function parseSmallSize(option: string, text: string): number {
  const bytes = parseSize(option, text);
  if (bytes > BigInt(Number.MAX_SAFE_INTEGER)) throw new UsageError(`--${option}: too large: ${text}`);
  return Number(bytes);
}

/** Parses seconds, possibly with a fraction. Returns milliseconds, rounded up. */
export function parseSeconds(option: string, text: string): number {
  const seconds = /^\d{1,7}(\.\d+)?$/.test(text) ? Number(text) : NaN;
  // Node's timers are limited to 2^31 - 1 milliseconds.
  if (!(seconds <= MOST_SECONDS)) {
    throw new UsageError(`--${option}: could not parse: ${text}`, {
      hint: `expected a number of seconds, at most ${MOST_SECONDS}`,
    });
  }
  return Math.ceil(seconds * 1000);
}

const MOST_SECONDS = 2_000_000;

/** Parses an integer of at least `minimum`. */
export function parseCount(option: string, text: string, minimum = 1): number {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : NaN;
  if (!(value >= minimum)) throw new UsageError(`--${option}: could not parse: ${text}`);
  return value;
}

/**
 * A JSON string with libnbd's escapes: `\"`, `\\`, and `\u00XX` for everything below space (where JSON.stringify
 * would write `\n`). Invisible and misleading characters are escaped as in the rest of this package.
 */
export function jsonString(text: string): string {
  let out = '"';
  for (const char of text) {
    const code = char.charCodeAt(0);
    if (char === '"' || char === '\\') out += `\\${char}`;
    else if (code < 0x20) out += `\\u${code.toString(16).padStart(4, '0')}`;
    else out += char;
  }
  return visibleJson(`${out}"`);
}

/** printf's %.1f for a non-negative number. */
export const oneDecimal = (value: number): string => toEven(value.toFixed(100), 1) ?? value.toFixed(1);

/** printf's %g for a non-negative number: six significant digits, without trailing zeroes. */
export function general(value: number): string {
  if (value === 0) return '0';
  const [exact = '', exactPower] = value.toExponential(100).split('e');
  const even = toEven(exact, 5);
  const [mantissa = '', power = ''] = even === null ? value.toExponential(5).split('e') : [even, exactPower];
  const exponent = Number(power);
  if (exponent < -4 || exponent >= 6) {
    const sign = exponent < 0 ? '-' : '+';
    return `${mantissa.replace(/\.?0+$/, '')}e${sign}${String(Math.abs(exponent)).padStart(2, '0')}`;
  }
  const fixed = Number(`${mantissa}e${power}`).toFixed(5 - exponent);
  return fixed.includes('.') ? fixed.replace(/\.?0+$/, '') : fixed;
}

/**
 * C rounds a tie to the even digit, JavaScript rounds it up. Takes the exact digits; returns the text in C if it differs
 * from that in JavaScript, otherwise null.
 */
function toEven(exact: string, decimals: number): string | null {
  const end = exact.indexOf('.') + 1 + decimals;
  return /^50*$/.test(exact.slice(end)) && '02468'.includes(exact[end - 1] ?? '') ? exact.slice(0, end) : null;
}

/** libnbd's colours. */
export const COLOURS = {
  boldBlack: '1;30',
  brightBlue: '1;34',
  brightMagenta: '1;35',
  brightRed: '1;31',
  brightWhite: '1;37',
  green: '22;32',
  grey: '22;90',
  red: '22;31',
  onBlack: '40',
  onLightGrey: '47',
} as const;

/** Writes the escape sequences of colours, or nothing when colours are off. */
export class Paint {
  readonly on: boolean;

  constructor(on: boolean) {
    this.on = on;
  }

  /** Begins a colour. */
  begin(colour: string | null): string {
    return this.on && colour !== null ? `\u001b[${colour}m` : '';
  }

  /** Ends every colour. */
  get end(): string {
    return this.on ? '\u001b[0m' : '';
  }
}

/** The options --color, --colour and so on, for commands that print text. */
export const COLOUR_OPTIONS = [
  {
    names: ['color', 'colors', 'colour', 'colours'],
    help: 'Colour the output. Default: if it is a terminal and NO_COLOR is not set.',
  },
  { names: ['no-color', 'no-colors', 'no-colour', 'no-colours'], help: 'Do not colour the output.' },
] as const;

/** Decides whether to colour: by the last option given, otherwise if it is a terminal and NO_COLOR is not set. */
export function choosePaint(asked: string | undefined): Paint {
  if (asked !== undefined) return new Paint(asked === 'color');
  const refused = (process.env['NO_COLOR'] ?? '') !== '' || process.env['TERM'] === 'dumb';
  return new Paint(process.stdout.isTTY && !refused);
}

export { CliError, UsageError };
