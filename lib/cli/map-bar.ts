// The map as one line of a terminal: a coloured block per stretch, and a legend.

import { describeType } from './contexts.js';
import { cellColour, colourOf, toCells } from './map-model.js';
import { type Run, totalsByType } from './map-report.js';
import { type Paint, roundSize } from './text.js';

/** Without colours a letter stands for the commonest type of a stretch. */
const LETTERS = ['#', '.', '0', '-'];

export function mapBar(
  name: string,
  runs: readonly Run[],
  range: { offset: bigint; length: bigint },
  paint: Paint,
  columns: number,
): string {
  if (range.length === 0n) return '';
  const width = BigInt(Math.max(10, Math.min(columns, 120) - 2));
  const cells = toCells(runs, range.offset, range.length, (range.length + width - 1n) / width);
  const bar = cells
    .map((cell) => {
      if (paint.on) return `\u001b[48;2;${cellColour(name, cell).join(';')}m \u001b[0m`;
      const [commonest = 0n] = [...cell.shares].sort(([, a], [, b]) => (a < b ? 1 : -1))[0] ?? [];
      return LETTERS[Number(commonest)] ?? '?';
    })
    .join('');
  const legend = totalsByType(runs).map(([type, bytes]) => {
    const mark = paint.on
      ? `\u001b[48;2;${colourOf(name, type).join(';')}m  \u001b[0m`
      : (LETTERS[Number(type)] ?? '?');
    return `${mark} ${describeType(name, type).text ?? String(type)} ${roundSize(bytes)}`;
  });
  return `[${bar}]\n${legend.join('   ')}\n`;
}
