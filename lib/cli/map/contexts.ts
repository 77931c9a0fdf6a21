// Describes the types of known metadata contexts with the words and colours of nbdinfo.

import { CONTEXT_BASE_ALLOCATION, CONTEXT_QEMU_ALLOCATION_DEPTH, CONTEXT_QEMU_DIRTY_BITMAP } from '../sdk.js';
import { COLOURS } from '../output/text.js';

/** Contexts that completion offers; others have names of their own. */
export const KNOWN_CONTEXTS = [CONTEXT_BASE_ALLOCATION, CONTEXT_QEMU_ALLOCATION_DEPTH] as const;

export interface TypeDescription {
  readonly text: string | null;
  /** Colours of the line; null for the default colour of the terminal. */
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

/** Describes a type of a context. All fields are null if it is unknown. */
export function describeType(context: string, type: bigint): TypeDescription {
  const at = Number(type);
  if (context === CONTEXT_BASE_ALLOCATION) return ALLOCATION[at] ?? describe(null);
  if (context.startsWith(CONTEXT_QEMU_DIRTY_BITMAP)) return BITMAP[at] ?? describe(null);
  if (context === CONTEXT_QEMU_ALLOCATION_DEPTH) {
    return DEPTH[at] ?? describe(`backing depth ${type}`, null, COLOURS.onLightGrey);
  }
  return describe(null);
}
