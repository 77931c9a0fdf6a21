// The whole ladder, from the bottom.

import { type Group } from '../rung.js';
import { DEFAULTS, SETTINGS } from './defaults.js';

export const GROUPS: readonly Group[] = [DEFAULTS, SETTINGS];
