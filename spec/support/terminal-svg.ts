// What a program has written to a terminal, as an SVG: text with its colours, line by line, which appear as they did. It
// depends on no font: every piece of text has its width.
/* eslint-disable no-control-regex -- what a terminal gets */

/** Output, and the milliseconds after the beginning at which it came. */
export interface TerminalOutput {
  readonly time: number;
  readonly text: string;
}

interface Style {
  readonly foreground: string | null;
  readonly background: string | null;
  readonly bold: boolean;
}

interface Piece extends Style {
  readonly text: string;
  readonly column: number;
}

/** A state of a line, and when it was shown; without an end it stays. */
interface Version {
  readonly row: number;
  readonly pieces: readonly Piece[];
  readonly from: number;
  readonly to: number | null;
}

const PLAIN: Style = { foreground: null, background: null, bold: false };
const COLOURS = ['#3b4252', '#e06c75', '#98c379', '#e5c07b', '#61afef', '#c678dd', '#56b6c2', '#d8dee9'];
const GREY = '#8b949e';

/** A terminal that knows what `nbd` uses: colours, carriage returns, and the movements of a progress bar. */
class Terminal {
  readonly #rows: (readonly [char: string, style: Style])[][] = [[]];
  #row = 0;
  #column = 0;
  #style: Style = PLAIN;
  /** The beginning of an escape sequence, the rest of which is still to come. */
  #rest = '';

  write(chunk: string): void {
    const [text = '', rest = ''] = (this.#rest + chunk).split(/(\u001b(?:\[[?\d;]*)?)$/);
    this.#rest = rest;
    for (const [token, parameters = '', final = ''] of text.matchAll(
      /\u001b\[([?\d;]*)([A-Za-z])|\u001b[78]|[^\u001b]|\u001b/gu,
    )) {
      if (final !== '') this.#control(parameters, final);
      else if (token === '\n') this.#rows[++this.#row] ??= [];
      else if (token === '\r') this.#column = 0;
      else if (token === '\t') this.#put(' '.repeat(8 - (this.#column % 8)));
      else if (token >= ' ' && token.length === 1) this.#put(token);
    }
  }

  #put(text: string): void {
    const row = this.#rows[this.#row] ?? [];
    for (const char of text) {
      while (row.length < this.#column) row.push([' ', PLAIN]);
      row[this.#column++] = [char, this.#style];
    }
  }

  #control(parameters: string, final: string): void {
    const numbers = parameters.split(';').map(Number);
    const [first = 0] = numbers;
    if (final === 'm') this.#style = numbers.reduce(styled, this.#style);
    else if (final === 'G') this.#column = Math.max(first, 1) - 1;
    else if (final === 'K') this.#rows[this.#row]?.splice(this.#column);
    const rgb = /^48;2;(\d+);(\d+);(\d+)$/.exec(parameters);
    if (rgb !== null) this.#style = { ...this.#style, background: `rgb(${rgb.slice(1).join(',')})` };
  }

  /** The rows as pieces of one style each. */
  get rows(): Piece[][] {
    return this.#rows.map((row) => {
      const pieces: Piece[] = [];
      for (const [column, [char, style]] of row.entries()) {
        const last = pieces.at(-1);
        const isSame = last !== undefined && JSON.stringify({ ...last, ...style }) === JSON.stringify(last);
        if (isSame) pieces[pieces.length - 1] = { ...last, text: last.text + char };
        else pieces.push({ ...style, text: char, column });
      }
      return pieces;
    });
  }
}

function styled(style: Style, code: number): Style {
  if (code === 0) return PLAIN;
  if (code === 1) return { ...style, bold: true };
  if (code === 22) return { ...style, bold: false };
  if (code >= 30 && code <= 37) return { ...style, foreground: code === 30 ? null : (COLOURS[code - 30] ?? null) };
  return code === 90 ? { ...style, foreground: GREY } : style;
}

const [CHAR, LINE, PADDING, TITLE] = [8, 18, 14, 30];

/** The SVG. Animated where CSS is; elsewhere, and where less motion is preferred, it shows the end. */
export function terminalSvg(outputs: readonly TerminalOutput[], columns: number, title: string): string {
  const versions = versionsOf(outputs);
  const rows = Math.max(...versions.map(({ row }) => row)) + 1;
  const [width, height] = [columns * CHAR + 2 * PADDING, TITLE + rows * LINE + PADDING];
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="monospace" font-size="13" fill="#d8dee9">
<title>${escaped(title)}</title>
<style>text{white-space:pre}g{animation:a .01s both}.t{opacity:0}.t{animation:b forwards}@keyframes a{from{opacity:0}}@keyframes b{0%{opacity:1}99%{opacity:1}to{opacity:0}}@media(prefers-reduced-motion:reduce){g,.t{animation:none}}</style>
<rect width="${width}" height="${height}" rx="8" fill="#1e222a"/>
${['#ff5f56', '#ffbd2e', '#27c93f'].map((fill, at) => `<circle cx="${20 + at * 18}" cy="16" r="5.5" fill="${fill}"/>`).join('')}
${versions.map(draw).join('\n')}
</svg>
`;
}

/** Milliseconds between two states of a line that are both shown. */
const FRAME = 200;

function versionsOf(outputs: readonly TerminalOutput[]): Version[] {
  const terminal = new Terminal();
  const done: Version[] = [];
  const open = new Map<number, Version>();
  const snapshot = (time: number): void => {
    for (const [row, pieces] of terminal.rows.entries()) {
      const before = open.get(row);
      if (pieces.length === 0 || JSON.stringify(before?.pieces) === JSON.stringify(pieces)) continue;
      if (before !== undefined && time - before.from < FRAME) {
        // Too short to be seen: the new state takes its place.
        open.set(row, { ...before, pieces });
        continue;
      }
      if (before !== undefined) done.push({ ...before, to: time });
      open.set(row, { row, pieces, from: time, to: null });
    }
  };
  for (const { time, text } of outputs) {
    terminal.write(text);
    snapshot(time);
  }
  return [...done, ...open.values()].sort((a, b) => a.from - b.from);
}

function draw({ row, pieces, from, to }: Version): string {
  const y = TITLE + row * LINE;
  const parts = pieces.flatMap(({ text, column, foreground, background, bold }) => {
    const x = PADDING + column * CHAR;
    const length = text.length * CHAR;
    const box =
      background === null
        ? []
        : [`<rect x="${x}" y="${y + 1}" width="${length}" height="${LINE - 2}" fill="${background}"/>`];
    if (text.trim() === '') return box;
    const look = `${foreground === null ? '' : ` fill="${foreground}"`}${bold ? ' font-weight="700"' : ''}`;
    return [
      ...box,
      `<text x="${x}" y="${y + 13}" textLength="${length}" lengthAdjust="spacingAndGlyphs"${look}>${escaped(text)}</text>`,
    ];
  });
  const delay = (from / 1000).toFixed(2).replace(/\.?0+$/, '');
  const shown = to === null ? '' : `;animation-duration:${((to - from) / 1000).toFixed(2)}s`;
  return `<g${to === null ? '' : ' class="t"'} style="animation-delay:${delay}s${shown}">${parts.join('')}</g>`;
}

const escaped = (text: string): string => text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');
