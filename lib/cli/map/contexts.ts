// What the numbers of a metadata context mean, in libnbd's words and colours.

import { CONTEXT_BASE_ALLOCATION, CONTEXT_QEMU_ALLOCATION_DEPTH, CONTEXT_QEMU_DIRTY_BITMAP } from '../sdk.js';
import { COLOURS } from '../output/text.js';

export interface TypeDescription {
  readonly text: string | null;
  /** Colours of the line, or null for the terminal's own. */
  readonly foreground: string | null;
  readonly background: string | null;
}

const describe = (
  text: string | null,
  foreground: string | null = null,
  background: string | null = null,
): TypeDescription => ({ text, foreground, background });

const ALLOCATION = [
  describe('data', COLOURS.boldBlack),
  describe('hole'),
  describe('zero'),
  describe('hole,zero'),
] as const;
const BITMAP = [describe('clean', COLOURS.green), describe('dirty', COLOURS.red)] as const;
const DEPTH = [describe('absent'), describe('local', COLOURS.brightWhite, COLOURS.onBlack)] as const;

/** What a type of a context is; nothing where nobody knows. */
export function describeType(context: string, type: bigint): TypeDescription {
  const at = Number(type);
  if (context === CONTEXT_BASE_ALLOCATION) return ALLOCATION[at] ?? describe(null);
  if (context.startsWith(CONTEXT_QEMU_DIRTY_BITMAP)) return BITMAP[at] ?? describe(null);
  if (context === CONTEXT_QEMU_ALLOCATION_DEPTH) {
    return DEPTH[at] ?? describe(`backing depth ${type}`, null, COLOURS.onLightGrey);
  }
  return describe(null);
}
