// The tables of what a hostile or broken server does, byte by byte, and what our client must answer.

import { afterAll, describe, it } from '@jest/globals';

import { BLOCK_STATUS } from './cases/block-status.js';
import { CONTEXTS } from './cases/contexts.js';
import { EXPORTS } from './cases/exports.js';
import { EXTENDED } from './cases/extended.js';
import { GREETING } from './cases/greeting.js';
import { LISTS } from './cases/lists.js';
import { OPTION_REPLIES } from './cases/option-replies.js';
import { SIMPLE_REPLIES } from './cases/simple-replies.js';
import { STRUCTURED_DATA } from './cases/structured-data.js';
import { STRUCTURED_ENDINGS } from './cases/structured-endings.js';
import { WRITES } from './cases/writes.js';
import { type WireCase } from './notation.js';
import { outcomeName } from './outcomes.js';
import { printVerdicts, runCase } from './runner.js';

const TABLES: Readonly<Record<string, readonly WireCase[]>> = {
  greeting: GREETING,
  'option replies': OPTION_REPLIES,
  'the list of exports': LISTS,
  'INFO, GO and EXPORT_NAME': EXPORTS,
  'metadata contexts': CONTEXTS,
  'simple replies': SIMPLE_REPLIES,
  'structured replies': [...STRUCTURED_DATA, ...STRUCTURED_ENDINGS],
  'block status': BLOCK_STATUS,
  'extended headers': EXTENDED,
  'writes and disconnect': WRITES,
};

afterAll(printVerdicts);

for (const [title, rows] of Object.entries(TABLES)) {
  describe(title, () => {
    for (const row of rows) {
      it(`${row.id} ${row.what}: ${row.expected.map(outcomeName).join('|')}`, () => runCase(row));
    }
  });
}
