// The tables of what a hostile or broken server does, byte by byte, and what our client must answer.

import { afterAll, describe, it } from '@jest/globals';

import { BLOCK_STATUS, EXTENDED, WRITES } from './cases/commands.js';
import { CONTEXTS, EXPORTS } from './cases/export.js';
import { GREETING, LISTS, OPTION_REPLIES } from './cases/handshake.js';
import { SIMPLE_REPLIES, STRUCTURED_REPLIES } from './cases/replies.js';
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
  'structured replies': STRUCTURED_REPLIES,
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
