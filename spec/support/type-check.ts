// TypeScript with the repository's own settings: a program of which a spec asks what is declared where, and the errors
// of files that need not exist.

import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import ts from 'typescript';

import { ROOT } from './root.js';
import { runTool } from './tools.js';

/** A program over files by path from the repository's root. `relaxed` settings override tsconfig.json's. */
export function programOf(files: readonly string[], relaxed: Readonly<ts.CompilerOptions> = {}): ts.Program {
  const { options, errors } = ts.parseJsonConfigFileContent(
    { ...(ts.readConfigFile(join(ROOT, 'tsconfig.json'), ts.sys.readFile).config as object), include: [], files: [] },
    ts.sys,
    ROOT,
  );
  const broken = errors.filter(({ code }) => code !== NO_FILES);
  if (broken.length > 0) {
    throw new Error(broken.map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, ' ')).join('\n'));
  }
  return ts.createProgram(
    files.map((path) => join(ROOT, path)),
    { ...options, ...relaxed },
  );
}

/** "The 'files' list in config file is empty": the files are given to the program instead. */
const NO_FILES = 18002;

const ERROR = /^(\S+)\((\d+),\d+\): error TS\d+: (.*)$/gm;

/**
 * `path:line: message` per error in files that are given by path and text. The native compiler checks them in a process
 * of its own, in a quarter of the time that the other one takes.
 */
export async function typeErrors(files: ReadonlyMap<string, string>): Promise<string[]> {
  const cache = join(ROOT, 'node_modules/.cache');
  await mkdir(cache, { recursive: true });
  // Below the repository, so that the imports of packages are found.
  const folder = await mkdtemp(join(cache, 'nbd-types-'));
  try {
    for (const [path, text] of files) {
      await mkdir(dirname(join(folder, path)), { recursive: true });
      await writeFile(join(folder, path), text);
    }
    const settings = {
      extends: join(ROOT, 'tsconfig.json'),
      compilerOptions: { noUnusedLocals: false },
      ...{ include: [], files: [...files.keys()] },
    };
    await writeFile(join(folder, 'tsconfig.json'), JSON.stringify(settings));
    const tsc = join(ROOT, 'node_modules/typescript-7/bin/tsc');
    const args = [tsc, '-p', folder, '--pretty', 'false', '--singleThreaded'];
    const { code, stdout, stderr } = await runTool(process.execPath, args, { cwd: folder });
    const errors = [...stdout.matchAll(ERROR)].map(([, path, line, message]) => `${path}:${line}: ${message}`);
    if ((code === 0) !== (errors.length === 0)) throw new Error(`the compiler failed: ${stdout}${stderr}`);
    return errors;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
