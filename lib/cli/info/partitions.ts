// `nbd info --partitions`: the partition table of an export as text and as JSON.

import { jsonOf } from '../../bulk/ranges.js';
import type { Partition, PartitionTable } from '../../bulk/partitions/table.js';
import { visible } from '../../util/visible.js';
import { jsonString, roundSize } from '../output/text.js';

/** Lines below an export, indented as its contexts are. */
export function partitionsText(table: PartitionTable | null): string {
  if (table === null) return '\tpartitions: none\n';
  const { type, sectorSize, id, partitions, problems } = table;
  const rows = [['no', 'offset', 'length', '', 'type'], ...partitions.map(cellsOf)];
  const widths = [0, 1, 2, 3].map((column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const lines = rows.map((row) => {
    const columns = widths.map((width, column) => (row[column] ?? '').padStart(width));
    return `\t\t${columns.join('  ')}  ${row[4] ?? ''}\n`;
  });
  const head = `\tpartitions: ${type}, sectors of ${sectorSize} bytes, ${visible(id)}\n`;
  return head + lines.join('') + problems.map((problem) => `\t\tproblem: ${problem}\n`).join('');
}

function cellsOf({ number, offset, length, type, typeName, name, isBootable }: Partition): string[] {
  const words = [typeName ?? type, ...(name === null ? [] : [jsonString(name)]), ...(isBootable ? ['bootable'] : [])];
  return [String(number), String(offset), String(length), roundSize(length), words.join(', ')];
}

/** The value of the field `partitions`: what the library's partitions() returns. */
export function partitionsJson(table: PartitionTable | null): string {
  if (table === null) return 'null';
  return write(jsonOf(table), '\t');
}

/** Objects that contain no others are one line. */
function write(value: unknown, indent: string): string {
  const inner = `${indent}\t`;
  if (typeof value === 'string') return jsonString(value);
  if (Array.isArray(value)) {
    const each = value.map((one) => `${inner}${write(one, inner)}`);
    return each.length === 0 ? '[]' : `[\n${each.join(',\n')}\n${indent}]`;
  }
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const fields = Object.entries(value).map(([key, one]) => `${jsonString(key)}: ${write(one, inner)}`);
  const isFlat = Object.values(value).every((one) => typeof one !== 'object' || one === null);
  return isFlat ? `{ ${fields.join(', ')} }` : `{\n${inner}${fields.join(`,\n${inner}`)}\n${indent}}`;
}
