// Writes the manual pages of the command `nbd`: `npm run man`, a part of `npm run build`. Their date is that of
// SOURCE_DATE_EPOCH, so that builds can be repeated, or today's. npm links the pages that package.json lists, one by one;
// the list is updated here when a command comes or goes.

import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { manPages } from '../../lib/cli/manual/man-page.js';
import { descriptions } from '../../lib/cli/registry.js';

const ROOT = resolve(import.meta.dirname, '../..');

const folder = resolve(process.argv[2] ?? join(ROOT, 'dist/man'));
const epoch = process.env['SOURCE_DATE_EPOCH'];
const pages = manPages(await descriptions(), epoch === undefined ? new Date() : new Date(Number(epoch) * 1000));
// Commands that are gone have no page.
await rm(folder, { recursive: true, force: true });
await mkdir(folder, { recursive: true });
for (const { name, text } of pages) await writeFile(join(folder, name), text);

const path = join(ROOT, 'package.json');
const text = await readFile(path, 'utf8');
const manifest = JSON.parse(text) as { man?: string[] };
const listed = pages.map(({ name }) => `./dist/man/${name}`);
if (process.argv[2] === undefined && JSON.stringify(manifest.man) !== JSON.stringify(listed)) {
  await writeFile(path, `${JSON.stringify({ ...manifest, man: listed }, null, 2)}\n`);
  process.stdout.write('package.json: the list of manual pages was updated\n');
}
