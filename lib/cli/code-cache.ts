// Loads a bundled CommonJS file with the code that V8 compiled of it in an earlier run: compiling is a quarter
// to a third of what a short command takes. Node 22.8 and later do the same by themselves (module.enableCompileCache).

import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname, join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { Script } from 'node:vm';

type Wrapper = (
  exports: object,
  require: NodeJS.Require,
  module: { exports: object },
  file: string,
  folder: string,
) => void;

/**
 * What the file exports. The code is kept in `folder`, which no other user may be able to write to: V8 executes what it
 * finds there. `hash` is that of the file's contents, because V8 compares nothing but the length of the source. V8
 * itself rejects code of another version of V8, or that was compiled with other flags; it is then replaced.
 */
export function requireCompiled(file: string, hash: string, folder: string): object {
  const source = `(function (exports, require, module, __filename, __dirname) {${readFileSync(file, 'latin1')}\n})`;
  const path = join(folder, `${basename(file)}-${hash}-${process.version}-${process.arch}.code`);
  const cachedData = read(path);
  const script = new Script(source, { filename: file, ...(cachedData === undefined ? {} : { cachedData }) });
  const module = { exports: {} };
  (script.runInThisContext() as Wrapper)(module.exports, createRequire(file), module, file, dirname(file));
  if (cachedData === undefined || script.cachedDataRejected === true) {
    // At the end, when it contains what the command needed, not only what runs first. A command that failed, or that
    // printed its help, needed little.
    process.once('exit', (code) => {
      if (code === 0 && !process.argv.includes('--help')) replace(path, script.createCachedData());
    });
  }
  return module.exports;
}

/**
 * Lets V8 wait six times as long before it optimizes a function: in 1 GiB of a copy its compiler took a sixth of the
 * processor time, and what it had compiled was used for too short a time. Later versions than that of Node 20 count in
 * another way and have a quicker compiler. To be called before code that was kept is loaded, which V8 rejects where its
 * flags are others.
 */
export function optimizeLater(): void {
  const { bun, v8 } = process.versions;
  if (bun === undefined && v8.startsWith('11.')) setFlagsFromString('--interrupt-budget=400000');
}

function read(path: string): Buffer | undefined {
  try {
    return readFileSync(path);
  } catch {
    return undefined;
  }
}

/** As a whole or not at all: another process may be reading it. */
function replace(path: string, code: Buffer): void {
  const fresh = `${path}.${process.pid}`;
  try {
    writeFileSync(fresh, code, { flag: 'wx', mode: 0o600 });
    renameSync(fresh, path);
  } catch {
    // The file system is full, or read-only: the next start is only a little slower.
    rmSync(fresh, { force: true });
  }
}
