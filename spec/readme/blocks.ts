// The README's programs: found by the comment that stands before each, checked by the compiler, and run.
//
//   <!-- example: complete -->                 runs as it is
//   <!-- example: with server -->              the same; the address of a server on localhost is put in
//   <!-- example: with connection -->          is given `connection`
//   <!-- example: with connection and X -->    is given one that has negotiated the metadata context X
//   <!-- example: types only -->               is checked and not run

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { MemoryBackend, NbdServer } from '../../lib/server/index.js';
import { runTool } from '../support/tools.js';
import { ROOT } from '../support/root.js';
import { typeErrors } from '../support/type-check.js';

export interface Block {
  /** The line of the fence, from 1. */
  readonly line: number;
  /** The comment before it. */
  readonly marker: string;
  readonly code: string;
  /** What its console.log calls print, from the comments behind them. */
  readonly output: readonly string[];
}

const MARKER = /^<!-- example: (.*) -->$/;
const KNOWN = /^(complete|with server|with connection( and (\S+))?|types only)$/;

/** Every `ts` block, or a list of what is wrong with the markers. */
export function findBlocks(markdown: string): {
  readonly blocks: readonly Block[];
  readonly problems: readonly string[];
} {
  const lines = markdown.split('\n');
  const blocks: Block[] = [];
  const problems: string[] = [];
  let marker: string | null = null;
  for (let at = 0; at < lines.length; at++) {
    const text = lines[at] as string;
    const found = MARKER.exec(text)?.[1];
    if (found !== undefined) marker = found;
    else if (/^```(ts|typescript|js|javascript|mjs)$/.test(text)) {
      const end = lines.indexOf('```', at);
      const code = lines.slice(at + 1, end).join('\n');
      if (marker === null || !KNOWN.test(marker)) {
        problems.push(`line ${at + 1}: ${marker === null ? 'no marker before it' : `unknown marker "${marker}"`}`);
      } else {
        blocks.push({ line: at + 1, marker, code, output: outputOf(code) });
      }
      marker = null;
      at = end;
    } else if (text !== '' && marker !== null) {
      problems.push(`line ${at + 1}: a marker without a block`);
      marker = null;
    }
  }
  return { blocks, problems };
}

/** Behind a console.log, or on the last lines where one prints more than once. */
function outputOf(code: string): string[] {
  const behind = [...code.matchAll(/console\.log\(.*\/\/ (.*)$/gm)].map(([, comment]) => comment as string);
  const lines = code.split('\n');
  const end = lines.findLastIndex((line) => !line.startsWith('// '));
  return [...behind, ...lines.slice(end + 1).map((line) => line.slice(3))];
}

/** The block as a module: one line in front, so that line numbers differ by a constant. */
function moduleOf({ code, marker }: Block, port: number): string {
  const [, needs = '', , context] = KNOWN.exec(marker) ?? [];
  const address = code
    .replaceAll("'nbd://localhost", `'nbd://127.0.0.1:${port}`)
    .replaceAll("'localhost'", "'127.0.0.1'")
    .replaceAll('10809', String(port));
  if (!needs.startsWith('with connection')) return `export {};\n${address}\n`;
  const options = `{ exportName: 'disk', metaContexts: ${JSON.stringify(context === undefined ? [] : [context])} }`;
  const target = `{ host: '127.0.0.1', port: ${port} }`;
  return `import { NbdConnection as Given } from 'nbd-sdk'; await using connection = await Given.connect(${target}, ${options});\n${address}\n`;
}

/**
 * The errors of the compiler, with the lines of the README. A snippet may leave a variable unused; nothing else
 * differs.
 */
export async function checkTypes(blocks: readonly Block[]): Promise<string[]> {
  const paths = new Map(blocks.map((block) => [`line-${block.line}.mts`, block]));
  const files = new Map([...paths].map(([path, block]) => [path, moduleOf(block, 10809)]));
  const errors = await typeErrors(files);
  return errors.map((error) =>
    error.replace(/^line-(\d+)\.mts:(\d+)/, (_, start: string, line: string) => {
      return `line ${Number(start) + Number(line) - 1}`;
    }),
  );
}

/**
 * Runs all of them in one process against one server, and reports those that did not do what their comments promise.
 */
export async function runBlocks(all: readonly Block[]): Promise<string[]> {
  const blocks = all.filter(({ marker }) => marker !== 'types only');
  const backend = new MemoryBackend(64 * 1024 * 1024);
  backend.write(Buffer.alloc(1024 * 1024, 'x'), 0);
  await using server = new NbdServer({ exports: { disk: backend }, defaultExport: 'disk' });
  await server.listenTcp();
  const { address } = server;
  const port = address !== null && 'port' in address ? address.port : 0;
  const folder = await mkdtemp(join(tmpdir(), 'nbd-readme-'));
  try {
    const paths: string[] = [];
    for (const block of blocks) {
      const path = join(folder, `line-${block.line}.mts`);
      await writeFile(path, moduleOf(block, port));
      paths.push(path);
    }
    const main = join(folder, 'main.mts');
    await writeFile(main, RUNNER);
    const { stdout, stderr } = await runTool(process.execPath, ['--import', 'tsx', main, ...paths], {
      cwd: ROOT,
      env: { TSX_TSCONFIG_PATH: join(ROOT, 'tsconfig.json'), FORCE_COLOR: '0' },
    });
    if (!stdout.startsWith('[')) return [`the blocks did not run: ${stdout}${stderr}`];
    const results = JSON.parse(stdout) as Result[];
    return blocks.flatMap((block, i) => problemsOf(block, results[i] as Result));
  } finally {
    await rm(folder, { recursive: true });
  }
}

interface Result {
  readonly printed: readonly string[];
  readonly error: string | null;
}

function problemsOf({ line, output }: Block, { printed, error }: Result): string[] {
  if (error !== null) return [`line ${line}: ${error}`];
  const [said, does] = [output.join('\n'), printed.join('\n')];
  return said === does ? [] : [`line ${line}: says ${JSON.stringify(said)} and prints ${JSON.stringify(does)}`];
}

const RUNNER = `
import { format } from 'node:util';
import { pathToFileURL } from 'node:url';
const results = [];
for (const path of process.argv.slice(2)) {
  const printed: string[] = [];
  console.log = (...args) => printed.push(format(...args));
  const error = await import(pathToFileURL(path).href).then(() => null, (thrown) => String(thrown));
  results.push({ printed, error });
}
process.stdout.write(JSON.stringify(results));
`;
