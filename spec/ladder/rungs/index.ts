// The whole ladder, from the bottom. A new rung goes to the end of its group; the numbers are the order.

import { type Group } from '../rung.js';
import { ASYNC } from './async.js';
import { BLOCK_STATUS } from './block-status.js';
import { CACHE } from './cache.js';
import { CONNECTING } from './connecting.js';
import { CONTEXTS } from './contexts.js';
import { DEATH } from './death.js';
import { DEFAULTS, SETTINGS } from './defaults.js';
import { ENDING } from './ending.js';
import { ERRORS } from './errors.js';
import { FLAGS } from './flags.js';
import { OPTION_MODE } from './option-mode.js';
import { READING, STRUCTURED } from './reading.js';
import { STATS } from './stats.js';
import { TLS } from './tls.js';
import { URIS } from './uris.js';
import { WRITING } from './writing.js';

export const GROUPS: readonly Group[] = [
  ...[DEFAULTS, SETTINGS, CONNECTING, OPTION_MODE, CONTEXTS, FLAGS],
  ...[READING, STRUCTURED, WRITING, BLOCK_STATUS, CACHE],
  ...[ASYNC, ERRORS, DEATH, STATS, TLS, URIS, ENDING],
];
