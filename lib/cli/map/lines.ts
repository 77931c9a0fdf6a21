// Lines of a map and of its totals as text and as JSON, in the layout of nbdinfo --map.

import { describeType } from './contexts.js';
import type { Run, Totals } from './runs.js';
import { general, jsonString, oneDecimal, type Paint } from '../output/text.js';

/** A line of a map: the columns, and what the type means, in its colours. */
function line(name: string, type: bigint, paint: Paint, columns: string, separator: string): string {
  const { text, foreground, background } = describeType(name, type);
  const coloured = foreground !== null || background !== null;
  const described = text === null ? '' : `${separator}${text}`;
  return `${paint.begin(foreground)}${paint.begin(background)}${columns}${described}${coloured ? paint.end : ''}\n`;
}

export function runText(name: string, { offset, length, type }: Run, paint: Paint): string {
  const columns = `${String(offset).padStart(10)}  ${String(length).padStart(10)}  ${String(type).padStart(3)}`;
  return line(name, type, paint, columns, '  ');
}

export const runJson = (name: string, { offset, length, type }: Run): string =>
  `{ "offset": ${offset}, "length": ${length}, "type": ${type}${describedJson(name, type)}}`;

export function describedJson(name: string, type: bigint): string {
  const { text } = describeType(name, type);
  return text === null ? '' : `, "description": ${jsonString(text)}`;
}

export const percent = (bytes: bigint, size: bigint): number => (100 * Number(bytes)) / Number(size);

export function totalsText(name: string, totals: Readonly<Totals['list']>, size: bigint, paint: Paint): string {
  return totals
    .map(([type, bytes]) => {
      const share = oneDecimal(percent(bytes, size)).padStart(5);
      return line(name, type, paint, `${String(bytes).padStart(10)} ${share}% ${String(type).padStart(3)}`, ' ');
    })
    .join('');
}

export function totalsJson(name: string, totals: Readonly<Totals['list']>, size: bigint): string {
  if (size === 0n) return '[]\n';
  const lines = totals.map(
    ([type, bytes]) =>
      `{ "size": ${bytes}, "percent": ${general(percent(bytes, size))}, "type": ${type}${describedJson(name, type)} }`,
  );
  return `[\n${lines.join(',\n')}\n]\n`;
}
