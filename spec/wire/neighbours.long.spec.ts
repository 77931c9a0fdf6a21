// The neighbours of the tables' rows: the same lie at another option, in another reply format, one byte shorter and
// longer. Each table is played as a whole, several rows at once.

import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';

import { CHUNK_NEIGHBOURS } from './cases/neighbours/chunks.js';
import { HOSTILE_NAMES } from './cases/neighbours/hostile-names.js';
import { LENGTH_NEIGHBOURS } from './cases/neighbours/lengths.js';
import { GREETING_NEIGHBOURS, OPTION_NEIGHBOURS, REFUSAL_NEIGHBOURS } from './cases/neighbours/options.js';
import { SIMPLE_NEIGHBOURS } from './cases/neighbours/simple.js';
import { STATUS_NEIGHBOURS } from './cases/neighbours/status.js';
import { WRITE_NEIGHBOURS } from './cases/neighbours/writes.js';
import { type WireCase } from './notation.js';
import { outcomeName } from './outcomes.js';
import { printVerdicts, runTogether } from './runner.js';

const TABLES: Readonly<Record<string, readonly WireCase[]>> = {
  greeting: GREETING_NEIGHBOURS,
  'option replies, at every option': OPTION_NEIGHBOURS,
  'refusals, at every option': REFUSAL_NEIGHBOURS,
  'lengths of entries': LENGTH_NEIGHBOURS,
  'simple replies, to every command and in every style': SIMPLE_NEIGHBOURS,
  'chunks, structured and extended': CHUNK_NEIGHBOURS,
  'block status, structured and extended': STATUS_NEIGHBOURS,
  'names of a server in our messages': HOSTILE_NAMES,
  'writes and disconnect, in every style': WRITE_NEIGHBOURS,
};

afterAll(printVerdicts);

describe.each(Object.entries(TABLES))('%s', (_, rows) => {
  let played: Awaited<ReturnType<typeof runTogether>>;
  beforeAll(async () => {
    played = await runTogether(rows);
  }, 1_200_000);

  it.each(rows.map((row) => [`${row.id} ${row.what}: ${row.expected.map(outcomeName).join('|')}`, row.id]))(
    '%s',
    (__, id) => {
      if (played.failures.has(id)) throw played.failures.get(id);
    },
  );

  it('leaves nothing behind, and has each row once', () => {
    expect(played.left).toEqual([]);
    expect(new Set(rows.map(({ id }) => id)).size).toBe(rows.length);
  });
});
