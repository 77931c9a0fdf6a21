// Renders a picture of a map: a grid of cells with a legend and totals, as SVG, or as an HTML page that shows the range
// under the pointer. Both are self-contained: they load nothing.

import { describeType } from './contexts.js';
import { type Cell, cellColour, type Colour, colourOf, type DrawnMap, hex, type Picture } from './cells.js';
import type { Range } from '../range.js';
import { humanSize, oneDecimal, roundSize } from '../output/text.js';
import { visible } from '../../util/visible.js';

const COLUMNS = 64;
const MOST_ROWS = 32;
/** Maximum number of cells of one map. */
export const MOST_CELLS = COLUMNS * MOST_ROWS;
const CELL = 14;
const GAP = 2;
const PITCH = CELL + GAP;
const MARGIN = 24;
/** Width of the offsets to the left of the rows. */
const LABELS = 88;
const LEFT = MARGIN + LABELS;
const WIDTH = LEFT + COLUMNS * PITCH + MARGIN;
const TITLE_HEIGHT = 64;
const HEADING_HEIGHT = 34;
const LEGEND_LINE = 24;

export function escapeXml(text: string): string {
  const escaped = text
    .replace(/&/g, '&amp;')
    .replace(/</g, '&lt;')
    .replace(/>/g, '&gt;')
    .replace(/"/g, '&quot;')
    .replace(/'/g, '&#39;')
    // XML must not contain these characters, even escaped.
    .replace(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, '\ufffd');
  return visible(escaped);
}

const title = ({ exportName }: Picture): string =>
  exportName === '' ? 'the default export' : `export “${exportName}”`;

export function renderSvg(picture: Picture): string {
  const { cellSize } = picture;
  const colours = new Colours();
  let y = TITLE_HEIGHT;
  const parts: string[] = [];
  for (const map of picture.maps) {
    const drawn = drawMap(map, picture, y, colours);
    parts.push(drawn.svg);
    y += drawn.height;
  }
  const height = y + MARGIN;
  const part = picture.length === picture.size ? '' : `, from ${picture.offset}, ${roundSize(picture.length)}`;
  const subtitle = `${picture.size} bytes (${roundSize(picture.size)})${part}; one block is ${humanSize(cellSize)}`;
  const origin = `patternUnits="userSpaceOnUse" x="${LEFT}" y="${TITLE_HEIGHT + HEADING_HEIGHT}"`;
  // Blocks of equal contents side by side are one shape; the mask shows it as blocks.
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" font-family="system-ui, sans-serif" font-size="13">
<title>Map of ${escapeXml(title(picture))}</title>
<style>${colours.css}</style>
<defs><pattern id="b" ${origin} width="${PITCH}" height="${PITCH}"><rect width="${CELL}" height="${CELL}" rx="2" fill="#fff"/></pattern>
<mask id="m" maskUnits="userSpaceOnUse" x="0" y="0" width="${WIDTH}" height="${height}"><rect width="${WIDTH}" height="${height}" fill="url(#b)"/></mask></defs>
<rect class="page" width="${WIDTH}" height="${height}"/>
<text x="${MARGIN}" y="30" font-size="18" font-weight="600">Map of ${escapeXml(title(picture))}</text>
<text x="${MARGIN}" y="50" class="dim">${escapeXml(subtitle)}</text>
${parts.join('\n')}
</svg>
`;
}

/** The colours of a picture as classes, each with what it is on a dark page. */
class Colours {
  readonly #classes = new Map<string, { readonly name: string; readonly colour: Colour }>();

  nameOf(colour: Colour): string {
    const key = hex(colour.light) + hex(colour.dark);
    const found = this.#classes.get(key) ?? { name: `c${this.#classes.size}`, colour };
    this.#classes.set(key, found);
    return found.name;
  }

  get css(): string {
    const rules = (theme: keyof Colour): string =>
      [...this.#classes.values()].map(({ name, colour }) => `.${name}{fill:${hex(colour[theme])}}`).join('');
    const page = (background: string, text: string, dim: string, edge: string): string =>
      `.page{fill:${background}}text{fill:${text}}.dim{fill:${dim}}.key{stroke:${edge}}`;
    return (
      `${page('#fff', '#0f172a', '#475569', '#94a3b8')}${rules('light')}` +
      `@media(prefers-color-scheme:dark){${page('#0b1120', '#e2e8f0', '#94a3b8', '#64748b')}${rules('dark')}}`
    );
  }
}

function drawMap(map: DrawnMap, picture: Picture, top: number, colours: Colours): { svg: string; height: number } {
  const { context, cells, totals } = map;
  const rows = Math.ceil(cells.length / COLUMNS);
  const gridTop = top + HEADING_HEIGHT;
  const axis = new Axis(picture.offset, picture.cellSize * BigInt(COLUMNS), rows);
  const labels = Array.from({ length: rows }, (_, row) => {
    const y = gridTop + row * PITCH + CELL - 3;
    return `<text x="${LEFT - 8}" y="${y}">${axis.label(row)}</text>`;
  });
  const blocks = runsOf(cells).map(({ first, last, count, at }) => {
    const [x, y] = [LEFT + (at % COLUMNS) * PITCH, gridTop + Math.floor(at / COLUMNS) * PITCH];
    const range = { offset: first.offset, length: last.offset + last.length - first.offset };
    const text = escapeXml(describeRun(context, range, first));
    const name = colours.nameOf(cellColour(context, first));
    return `<rect class="${name}" x="${x}" y="${y}" width="${count * PITCH}" height="${PITCH}"><title>${text}</title></rect>`;
  });
  const legendTop = gridTop + rows * PITCH + 20;
  const legend = totals.map(([type, bytes], at) => {
    const y = legendTop + at * LEGEND_LINE;
    const share = oneDecimal((100 * Number(bytes)) / Number(picture.length));
    return (
      `<rect class="key ${colours.nameOf(colourOf(context, type))}" x="${LEFT}" y="${y - 12}" width="${CELL}" height="${CELL}" rx="2"/>` +
      `<text x="${LEFT + CELL + 8}" y="${y}">${escapeXml(nameOf(context, type))}</text>` +
      `<text x="${LEFT + 300}" y="${y}" text-anchor="end">${roundSize(bytes)}</text>` +
      `<text x="${LEFT + 370}" y="${y}" text-anchor="end" class="dim">${share} %</text>`
    );
  });
  const heading =
    `<text x="${LEFT}" y="${top + 18}" font-size="14" font-weight="600">${escapeXml(context)}</text>` +
    `<text x="${LEFT - 8}" y="${top + 18}" text-anchor="end" font-size="11" class="dim">${axis.unit}</text>`;
  const grid = [
    `<g text-anchor="end" font-size="11">${labels.join('')}</g>`,
    `<g class="blocks" mask="url(#m)">`,
    ...blocks,
    '</g>',
  ];
  const height = legendTop + Math.max(totals.length, 1) * LEGEND_LINE - top + 8;
  return {
    svg: `<g class="map">\n${[heading, ...grid, ...legend].join('\n')}\n</g>`,
    height: Math.ceil(height / PITCH) * PITCH,
  };
}

interface CellRun {
  readonly first: Cell;
  readonly last: Cell;
  readonly count: number;
  /** Index of the first cell. */
  readonly at: number;
}

/** Cells of one row that contain nothing but the same type are a run. */
function runsOf(cells: readonly Cell[]): CellRun[] {
  const runs: CellRun[] = [];
  for (const [at, cell] of cells.entries()) {
    const run = runs.at(-1);
    if (run !== undefined && at % COLUMNS !== 0 && isSame(run.first, cell)) {
      runs[runs.length - 1] = { ...run, last: cell, count: run.count + 1 };
    } else {
      runs.push({ first: cell, last: cell, count: 1, at });
    }
  }
  return runs;
}

function isSame(one: Cell, other: Cell): boolean {
  const [[type] = []] = one.shares;
  return one.shares.size === 1 && other.shares.size === 1 && type !== undefined && other.shares.has(type);
}

const UNITS = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];

/** The offsets of rows, all in the largest unit in which they are whole or halves. */
class Axis {
  readonly #offset: bigint;
  readonly #step: bigint;
  readonly #power: bigint;
  readonly #hasHalves: boolean;

  constructor(offset: bigint, step: bigint, rows: number) {
    const last = offset + BigInt(rows - 1) * step;
    const isIn = (unit: bigint): boolean => unit <= last && offset % unit === 0n && (rows < 2 || step % unit === 0n);
    let power = 0n;
    while (power < 6n && isIn(1n << (10n * (power + 1n) - 1n))) power++;
    this.#offset = offset;
    this.#step = step;
    this.#power = power;
    this.#hasHalves = power > 0n && !isIn(1n << (10n * power));
  }

  get unit(): string {
    return UNITS[Number(this.#power)] ?? '';
  }

  label(row: number): string {
    const offset = this.#offset + BigInt(row) * this.#step;
    const whole = offset >> (10n * this.#power);
    if (!this.#hasHalves) return String(whole);
    return `${whole}.${whole << (10n * this.#power) === offset ? '0' : '5'}`;
  }
}

const nameOf = (context: string, type: bigint): string => describeType(context, type).text ?? `type ${type}`;

/** The description of a run: its range, and the contents of its cells. */
function describeRun(context: string, { offset, length }: Range, cell: Cell): string {
  const shares = [...cell.shares].sort(([a], [b]) => (a < b ? -1 : 1));
  const [only] = shares;
  const contents =
    shares.length === 1 && only !== undefined
      ? nameOf(context, only[0])
      : shares.map(([type, bytes]) => `${nameOf(context, type)} ${roundSize(bytes)}`).join(', ');
  return `${offset} to ${offset + length - 1n}: ${contents}`;
}

export function renderHtml(picture: Picture): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>Map of ${escapeXml(title(picture))}</title>
<style>
body { margin: 0; font: 14px system-ui, sans-serif; color: #0f172a; background: #fff; }
svg { display: block; max-width: 100%; height: auto; }
#range { position: sticky; top: 0; display: block; padding: 8px 24px; min-height: 1.3em; background: #f1f5f9;
  border-bottom: 1px solid #cbd5e1; font-variant-numeric: tabular-nums; }
.blocks rect:hover { fill-opacity: .6; }
@media (prefers-color-scheme: dark) {
  body { color: #e2e8f0; background: #0b1120; }
  #range { background: #1e293b; border-color: #334155; }
}
</style>
</head>
<body>
<output id="range">Point at a block to see its range.</output>
${renderSvg(picture)}<script>
const range = document.getElementById('range');
document.querySelector('svg').addEventListener('pointerover', (event) => {
  const cell = event.target.closest('.blocks rect');
  if (cell === null) return;
  const map = cell.closest('.map').querySelector('text').textContent;
  range.textContent = map + ', ' + cell.querySelector('title').textContent;
});
</script>
</body>
</html>
`;
}
