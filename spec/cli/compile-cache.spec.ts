// Compiled code is kept only where no other user can write: Node runs what it finds there.

import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';
import { spawnSync, type SpawnSyncReturns } from 'node:child_process';
import { existsSync } from 'node:fs';
import module from 'node:module';
import { chmod, chown, lstat, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';

import { compileCacheFolder, useCompileCache } from '../../lib/cli/compile-cache.js';
import { cliPath } from './support.js';

const UID = userInfo().uid;
const NOBODY = 65534;

let home: string;
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'nbd-home-'));
});
afterEach(() => rm(home, { recursive: true, force: true }));

const folder = (environment: Record<string, string> = {}, uid: number | undefined = UID): string | null =>
  compileCacheFolder({ environment, home, uid });

describe('the folder of compiled code', () => {
  it('is in the home, made for this user alone, and is found again', async () => {
    const path = folder();
    expect(path).toBe(join(home, '.cache/nbd-sdk/code'));
    expect((await lstat(path as string)).mode & 0o777).toBe(0o700);
    expect(folder()).toBe(path);
  });

  it('is in XDG_CACHE_HOME', () => {
    expect(folder({ XDG_CACHE_HOME: join(home, 'elsewhere') })).toBe(join(home, 'elsewhere/nbd-sdk/code'));
    expect(folder({ XDG_CACHE_HOME: 'relative' })).toBe(join(home, '.cache/nbd-sdk/code'));
    expect(folder({ XDG_CACHE_HOME: '' })).toBe(join(home, '.cache/nbd-sdk/code'));
  });

  it('may be below a symbolic link that leads to a safe place', async () => {
    await mkdir(join(home, 'real'), { mode: 0o700 });
    await symlink(join(home, 'real'), join(home, '.cache'));
    expect(folder()).toBe(join(home, 'real/nbd-sdk/code'));
  });

  it.each<[string, () => Promise<unknown>, Record<string, string>?]>([
    [
      'others may write to it',
      () =>
        mkdir(join(home, '.cache/nbd-sdk/code'), { recursive: true }).then(() =>
          chmod(join(home, '.cache/nbd-sdk/code'), 0o777),
        ),
    ],
    [
      'others may read it',
      () =>
        mkdir(join(home, '.cache/nbd-sdk/code'), { recursive: true }).then(() =>
          chmod(join(home, '.cache/nbd-sdk/code'), 0o755),
        ),
    ],
    ['others may write above it', () => mkdir(join(home, '.cache')).then(() => chmod(join(home, '.cache'), 0o777))],
    ['the group may write above it', () => mkdir(join(home, '.cache')).then(() => chmod(join(home, '.cache'), 0o770))],
    ['others may write far above it', () => chmod(home, 0o777)],
    [
      'it is a symbolic link',
      async () => {
        await mkdir(join(home, '.cache'), { mode: 0o700 });
        await mkdir(join(home, 'mine'), { mode: 0o700 });
        await symlink(join(home, 'mine'), join(home, '.cache/nbd-sdk'));
      },
    ],
    ['it is a file', () => mkdir(join(home, '.cache')).then(() => writeFile(join(home, '.cache/nbd-sdk'), ''))],
    [
      'others may write to what it is in',
      () =>
        mkdir(join(home, '.cache/nbd-sdk'), { recursive: true }).then(() => chmod(join(home, '.cache/nbd-sdk'), 0o777)),
    ],
    ['the home is not there', () => rm(home, { recursive: true })],
    ['the cache is turned off', () => Promise.resolve(), { NODE_DISABLE_COMPILE_CACHE: '1' }],
    ['the user has chosen one, which Node has opened', () => Promise.resolve(), { NODE_COMPILE_CACHE: '/somewhere' }],
  ])('is not used where %s', async (_, prepare, environment = {}) => {
    await prepare();
    expect(folder(environment)).toBeNull();
    if (_.includes('home')) expect(existsSync(home)).toBe(false);
  });

  it('is not used where the system has no users, or in a folder of another user', async () => {
    expect(compileCacheFolder({ environment: {}, home, uid: undefined })).toBeNull();
    if (UID !== 0) return;
    // sudo that keeps HOME: root makes nothing there, which its owner could not use.
    await chown(home, NOBODY, NOBODY);
    expect(folder()).toBeNull();
    expect(existsSync(join(home, '.cache'))).toBe(false);
    await chown(home, UID, UID);
    for (const owned of ['.cache', '.cache/nbd-sdk', '.cache/nbd-sdk/code']) {
      await mkdir(join(home, owned), { mode: 0o700 });
      await chown(join(home, owned), NOBODY, NOBODY);
      expect(folder()).toBeNull();
      await chown(join(home, owned), UID, UID);
    }
    expect(folder()).not.toBeNull();
  });

  it('is all that Node is given', () => {
    const before = { ...process.env };
    const given: unknown[] = [];
    const run = (): void => {
      useCompileCache((...folders: unknown[]) => given.push(...folders));
    };
    try {
      delete process.env['NODE_COMPILE_CACHE'];
      delete process.env['NODE_DISABLE_COMPILE_CACHE'];
      process.env['XDG_CACHE_HOME'] = join(home, 'xdg');
      run();
      expect(given).toEqual([join(home, 'xdg/nbd-sdk/code')]);
      process.env['XDG_CACHE_HOME'] = join(home, 'no/such/folder');
      run();
      expect(given).toHaveLength(1);
      useCompileCache(undefined);
    } finally {
      process.env = before;
    }
  });

  // Node 20 keeps compiled code through cli/code-cache, later versions by themselves: NODE22 is the path of such a one.
  it.each([...new Set([process.execPath, process.env['NODE22'] ?? process.execPath])])(
    'is the only one that the command writes to (%s)',
    async (node) => {
      const main = await cliPath();
      const temporary = join(home, 'tmp');
      await mkdir(temporary);
      const { NODE_COMPILE_CACHE: _, XDG_CACHE_HOME: __, ...rest } = process.env;
      const env = { ...rest, HOME: home, TMPDIR: temporary };
      const run = (...words: string[]): SpawnSyncReturns<string> =>
        spawnSync(node, [main, ...words], { env, encoding: 'utf8' });
      expect(run('help', 'map').status).toBe(0);
      expect(await readdir(temporary)).toEqual([]);
      expect(await readdir(join(home, '.cache/nbd-sdk/code'))).toHaveLength(1);
      // What prints a version keeps nothing, and finds nothing.
      expect(run('--version').status).toBe(0);
      expect(await readdir(join(home, '.cache/nbd-sdk/code'))).toHaveLength(1);
    },
  );
});

describe('code kept by Node 20', () => {
  const isOld = (module as { enableCompileCache?: unknown }).enableCompileCache === undefined;
  const kept = async (): Promise<string[]> => (await readdir(join(home, '.cache/nbd-sdk/code'))).sort();
  const run = async (...words: string[]): Promise<string> => {
    const main = await cliPath();
    const { NODE_COMPILE_CACHE: _, XDG_CACHE_HOME: __, ...rest } = process.env;
    const ran = spawnSync(process.execPath, [main, ...words], { env: { ...rest, HOME: home }, encoding: 'utf8' });
    return `${ran.status} ${ran.stdout}${ran.stderr}`;
  };

  (isOld ? it : it.skip)('is replaced when it is cut short or not code, and results stay the same', async () => {
    const fresh = await run('help', 'map');
    const [name, ...others] = await kept();
    expect(others).toEqual([]);
    const path = join(home, '.cache/nbd-sdk/code', name as string);
    const code = await readFile(path);
    expect(await run('help', 'map')).toBe(fresh);
    expect((await readFile(path)).equals(code)).toBe(true);
    for (const bad of [
      Buffer.alloc(0),
      code.subarray(0, 100),
      code.subarray(0, code.length >> 1),
      Buffer.alloc(5000),
    ]) {
      await writeFile(path, bad);
      expect(await run('help', 'map')).toBe(fresh);
      expect((await stat(path)).size).toBeGreaterThan(code.length >> 1);
    }
    expect(await kept()).toEqual([name]);
  });

  (isOld ? it : it.skip)('is not written after a failure', async () => {
    expect(await run('info', 'nbd+unix:///?socket=/nowhere/at/all')).toMatch(/^1 /);
    expect(await kept()).toEqual([]);
  });
});
