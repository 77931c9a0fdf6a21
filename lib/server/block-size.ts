// Checks the sizes of an export against the protocol's rules: clients close the connection on invalid ones.

import {
  checkOptions,
  type OptionCheck,
  type OptionTable,
  powerOfTwo,
  refuse,
  shown,
  wholeNumber,
} from '../util/option-checks.js';
import { add, type U64 } from '../util/u64.js';
import type { BlockSize } from './backends/backend.js';

const MAX_MINIMUM = 65536;
/** "… or 0xffffffff to denote no limit". */
const NO_LIMIT = 0xffff_ffff;

const TABLE: OptionTable<BlockSize> = {
  minimum: powerOfTwo(1, MAX_MINIMUM),
  preferred: powerOfTwo(512),
  maximum: wholeNumber(1, NO_LIMIT),
};

/** All three sizes, valid and consistent with each other. */
export const aBlockSize: OptionCheck<BlockSize> = (where, value) => {
  const { minimum, preferred, maximum } = checkOptions(where, value, TABLE);
  if (minimum === undefined || preferred === undefined || maximum === undefined) {
    throw refuse(where, 'must have minimum, preferred and maximum');
  }
  if (preferred < minimum) throw refuse(where, `preferred (${preferred}) is less than minimum (${minimum})`);
  if (maximum < preferred) throw refuse(where, `maximum (${maximum}) is less than preferred (${preferred})`);
  if (maximum !== NO_LIMIT && maximum % minimum !== 0) {
    throw refuse(where, `maximum (${maximum}) is not a multiple of minimum (${minimum})`);
  }
  return { minimum, preferred, maximum };
};

/** The size of an export, in canonical form. */
export function checkSize(where: string, size: unknown): U64 {
  if (typeof size === 'bigint' && size >= 0n && size < 1n << 64n) return add(size, 0);
  if (typeof size === 'number' && Number.isSafeInteger(size) && size >= 0) return size;
  throw refuse(where, `must be an integer from 0 to 2^64 - 1, not ${shown(size)}`);
}
