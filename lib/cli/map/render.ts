// Renders a picture of a map: a grid of cells with a legend and totals, as SVG, or as an HTML page that shows the range
// under the pointer. Both are self-contained: they load nothing.

import { describeType } from './contexts.js';
import { type Cell, cellColour, colourOf, type DrawnMap, hex, type Picture } from './cells.js';
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
const WIDTH = MARGIN + LABELS + COLUMNS * PITCH + MARGIN;
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
  let y = TITLE_HEIGHT;
  const parts: string[] = [];
  for (const map of picture.maps) {
    const drawn = drawMap(map, picture, y);
    parts.push(drawn.svg);
    y += drawn.height;
  }
  const height = y + MARGIN;
  const part = picture.length === picture.size ? '' : `, from ${picture.offset}, ${roundSize(picture.length)}`;
  const subtitle = `${picture.size} bytes (${roundSize(picture.size)})${part}; one block is ${humanSize(cellSize)}`;
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" font-family="system-ui, sans-serif" font-size="13" fill="#0f172a">
<title>Map of ${escapeXml(title(picture))}</title>
<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>
<text x="${MARGIN}" y="30" font-size="18" font-weight="600">Map of ${escapeXml(title(picture))}</text>
<text x="${MARGIN}" y="50" fill="#475569">${escapeXml(subtitle)}</text>
${parts.join('\n')}
</svg>
`;
}

function drawMap(map: DrawnMap, picture: Picture, top: number): { svg: string; height: number } {
  const { cells, totals } = map;
  const rows = Math.ceil(cells.length / COLUMNS);
  const gridTop = top + HEADING_HEIGHT;
  const left = MARGIN + LABELS;
  const labels = Array.from({ length: rows }, (_, row) => {
    const offset = picture.offset + BigInt(row * COLUMNS) * picture.cellSize;
    const y = gridTop + row * PITCH + CELL - 3;
    return `<text x="${left - 8}" y="${y}" text-anchor="end" font-size="11" fill="#475569">${humanSize(offset)}</text>`;
  });
  const blocks = cells.map((cell, at) => {
    const x = left + (at % COLUMNS) * PITCH;
    const y = gridTop + Math.floor(at / COLUMNS) * PITCH;
    const fill = hex(cellColour(map.context, cell));
    return `<rect class="cell" x="${x}" y="${y}" width="${CELL}" height="${CELL}" rx="2" fill="${fill}" stroke="#94a3b8" stroke-opacity="0.35"><title>${escapeXml(describeCell(map.context, cell))}</title></rect>`;
  });
  const legendTop = gridTop + rows * PITCH + 20;
  const legend = totals.map(([type, bytes], at) => {
    const y = legendTop + at * LEGEND_LINE;
    const share = oneDecimal((100 * Number(bytes)) / Number(picture.length));
    return (
      `<rect x="${left}" y="${y - 12}" width="${CELL}" height="${CELL}" rx="2" fill="${hex(colourOf(map.context, type))}" stroke="#94a3b8"/>` +
      `<text x="${left + CELL + 8}" y="${y}">${escapeXml(nameOf(map.context, type))}</text>` +
      `<text x="${left + 300}" y="${y}" text-anchor="end">${roundSize(bytes)}</text>` +
      `<text x="${left + 370}" y="${y}" text-anchor="end" fill="#475569">${share} %</text>`
    );
  });
  const heading = `<text x="${left}" y="${top + 18}" font-size="14" font-weight="600">${escapeXml(map.context)}</text>`;
  return {
    svg: `<g class="map">\n${[heading, ...labels, ...blocks, ...legend].join('\n')}\n</g>`,
    height: legendTop + Math.max(totals.length, 1) * LEGEND_LINE - top + 8,
  };
}

const nameOf = (context: string, type: bigint): string => describeType(context, type).text ?? `type ${type}`;

/** The description of a cell: its range and its contents. */
function describeCell(context: string, cell: Cell): string {
  const shares = [...cell.shares].sort(([a], [b]) => (a < b ? -1 : 1));
  const [only] = shares;
  const contents =
    shares.length === 1 && only !== undefined
      ? nameOf(context, only[0])
      : shares.map(([type, bytes]) => `${nameOf(context, type)} ${roundSize(bytes)}`).join(', ');
  return `${cell.offset} to ${cell.offset + cell.length - 1n}: ${contents}`;
}

export function renderHtml(picture: Picture): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Map of ${escapeXml(title(picture))}</title>
<style>
body { margin: 0; font: 14px system-ui, sans-serif; color: #0f172a; background: #fff; }
svg { display: block; max-width: 100%; height: auto; }
#range { position: sticky; top: 0; display: block; padding: 8px 24px; min-height: 1.3em; background: #f1f5f9;
  border-bottom: 1px solid #cbd5e1; font-variant-numeric: tabular-nums; }
.cell:hover { stroke: #0f172a; stroke-opacity: 1; }
</style>
</head>
<body>
<output id="range">Point at a block to see its range.</output>
${renderSvg(picture)}<script>
const range = document.getElementById('range');
document.querySelector('svg').addEventListener('pointerover', (event) => {
  const cell = event.target.closest('.cell');
  if (cell === null) return;
  const map = cell.closest('.map').querySelector('text').textContent;
  range.textContent = map + ', ' + cell.querySelector('title').textContent;
});
</script>
</body>
</html>
`;
}
