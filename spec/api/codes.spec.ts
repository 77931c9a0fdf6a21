// The codes in the names of tests, such as V07 and S28.108: each has its meaning in spec/README.md, and the README
// has no code that is not used.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { expect, it } from '@jest/globals';

const SPEC = fileURLToPath(new URL('..', import.meta.url));
const CASES = join(SPEC, 'wire/cases');

/** Looks like a code: the name of a type. */
const NOT_A_CODE = 'U64';

/** Files of a folder, with those in the folders below it. */
const filesOf = (folder: string): string[] =>
  readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.ts'))
    .map((path) => join(folder, path));

/** The codes in a text, and those between the two ends of a range such as "V01 to V10". */
function codesIn(text: string): string[] {
  const named = [...text.matchAll(/(?<![\w%/])(?:[A-GKMSTUVWXZ]\d\d[a-z]?|I[1-8])(?![\w%])/g)].map(([code]) => code);
  const ranges = [...text.matchAll(/\b([A-Z])(\d+) to \1(\d+)\b/g)].flatMap(([, letter = '', from = '', to]) =>
    Array.from({ length: Number(to) - Number(from) + 1 }, (_, i) =>
      [letter, String(Number(from) + i).padStart(from.length, '0')].join(''),
    ),
  );
  return [...named, ...ranges].filter((code) => code !== NOT_A_CODE);
}

/** The codes of the tables of spec/wire, many of which are put together when the tables are made. */
async function codesOfCases(): Promise<string[]> {
  const rows: { id?: string }[] = [];
  for (const file of filesOf(CASES)) {
    const module = (await import(file)) as Record<string, unknown>;
    for (const table of Object.values(module)) if (Array.isArray(table)) rows.push(...(table as { id?: string }[]));
  }
  return rows.flatMap(({ id }) => (id === undefined ? [] : [id.replace(/[.+].*/, '')]));
}

it('are all listed in spec/README.md, and nothing else is', async () => {
  const readme = readFileSync(join(SPEC, 'README.md'), 'utf8');
  const listed = [...readme.matchAll(/^\| ([A-Z]\d+[a-z]?) +\|/gm)].map(([, code]) => code);
  expect(new Set(listed).size).toBe(listed.length);
  const inTables = await codesOfCases();
  expect(inTables.length).toBeGreaterThan(1000);
  const inTexts = filesOf(SPEC).flatMap((file) => codesIn(readFileSync(file, 'utf8')));
  const used = new Set([...inTables, ...inTexts]);
  expect([...used].filter((code) => !listed.includes(code)).sort()).toEqual([]);
  expect(listed.filter((code) => !used.has(code as string) && !code?.startsWith('I')).sort()).toEqual([]);
});
