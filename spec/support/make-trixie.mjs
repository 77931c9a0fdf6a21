// Makes a Debian trixie root with qemu-nbd 10, the first server with extended headers that distributions carry, once
// and for all runs to come. Invariant: a root under its final name is complete; one that is being made has another.

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';

/** The same place as in trixie.ts. */
const ROOT = join(process.env.NBD_SDK_CACHE ?? join(homedir(), '.cache', 'nbd-sdk'), 'trixie');
const SECONDS = 300;

/** Why no root can be made here; null when the making may begin. */
export function obstacle() {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return 'making one takes root on Linux';
  if (!/^ID=debian$/m.test(existsSync('/etc/os-release') ? readFileSync('/etc/os-release', 'utf8') : '')) {
    return 'this is no Debian';
  }
  return null;
}

/** Whether the root is there. */
export const hasTrixie = () => existsSync(join(ROOT, 'usr', 'bin', 'qemu-nbd'));

/** Makes the root with debootstrap; returns why that was impossible, null when it is there. */
export function makeTrixie() {
  const mirror = ownMirror();
  if (mirror === undefined) return 'the apt sources of this machine name no mirror of Debian';
  const making = `${ROOT}.making`;
  mkdirSync(dirname(ROOT), { recursive: true });
  if (existsSync(making)) {
    const age = (Date.now() - statSync(making).mtimeMs) / 1000;
    if (age < 2 * SECONDS) return `another process is making it: ${making}`;
    if (!remove(making)) return `${making} is in the way`;
  }
  mkdirSync(making);
  // coreutils' timeout ends the whole process group, the programs in the chroot too.
  const result = spawnSync(
    'timeout',
    [
      ...['--kill-after=10', String(SECONDS), 'debootstrap', '--variant=minbase', '--include=qemu-utils'],
      ...['trixie', making, mirror],
    ],
    { stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8' },
  );
  if (result.status !== 0) {
    const said = `${result.error?.message ?? ''}${result.stderr}${result.stdout}`.trim().split('\n');
    const isLate = result.status === 124 || result.status === 137;
    remove(making);
    return isLate
      ? `debootstrap took more than ${SECONDS} seconds`
      : `debootstrap failed: ${said.slice(-2).join(' | ')}`;
  }
  for (const folder of ['var/cache/apt', 'var/lib/apt/lists', 'usr/share/doc', 'usr/share/locale', 'usr/share/man']) {
    for (const name of readdirSync(join(making, folder))) {
      rmSync(join(making, folder, name), { recursive: true, force: true });
    }
  }
  try {
    rmSync(ROOT, { recursive: true, force: true });
    renameSync(making, ROOT);
  } catch (error) {
    return `${making} could not be renamed: ${error.message}`;
  }
  return null;
}

/** Where apt has this release of Debian from. */
function ownMirror() {
  const release = /^VERSION_CODENAME=(\w+)$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1];
  const { stdout } = spawnSync(
    'apt-get',
    ['indextargets', '--format', '$(REPO_URI) $(RELEASE) $(COMPONENT)', 'Identifier: Packages'],
    { encoding: 'utf8' },
  );
  const found = (stdout ?? '').split('\n').map((line) => line.split(' '));
  return found.find(([, name, component]) => (name === release || name === 'stable') && component === 'main')?.[0];
}

/** Removes a half-made root; false when something is still mounted in it, which must not be removed along with it. */
function remove(folder) {
  const mounted = () =>
    readFileSync('/proc/mounts', 'utf8')
      .split('\n')
      .map((line) => line.split(' ')[1] ?? '')
      .filter((path) => path.startsWith(`${folder}/`));
  for (const path of mounted().reverse()) spawnSync('umount', [path]);
  if (mounted().length > 0) return false;
  rmSync(folder, { recursive: true, force: true });
  return true;
}
