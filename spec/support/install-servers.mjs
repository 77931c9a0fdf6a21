// Runs before the tests: looks for the servers and tools that interop specs talk to, and on a Debian-like system,
// as root, installs what is missing. Elsewhere it says which specs will be skipped.
// NBD_SDK_NO_INSTALL=1 keeps it from installing anything. Only with CI=true is a missing program a failure.
// With CI=true or NBD_SDK_TRIXIE=1 it also makes a Debian trixie root (100 MB, once), for qemu-nbd 10.

import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';

import { hasTrixie, makeTrixie, obstacle } from './make-trixie.mjs';

/** What specs need, the Debian package that has it, and what goes untested without it. */
const NEEDS = [
  { tool: 'nbdkit', package: 'nbdkit', without: 'our client against nbdkit' },
  { tool: 'qemu-nbd', package: 'qemu-utils', without: 'our client against qemu-nbd' },
  { tool: 'qemu-img', package: 'qemu-utils', without: 'our server with qemu-img, dirty bitmaps' },
  { tool: 'qemu-io', package: 'qemu-utils', without: 'our server with qemu-io' },
  { tool: 'nbd-server', package: 'nbd-server', without: 'our client against nbd-server' },
  { tool: 'nbdinfo', package: 'libnbd-bin', without: 'our server with nbdinfo' },
  { tool: 'nbdcopy', package: 'libnbd-bin', without: 'our server with nbdcopy' },
  { tool: 'python3-libnbd', package: 'python3-libnbd', without: 'parity with libnbd' },
  { tool: 'redis-server', package: 'redis-server', without: 'fleets' },
  { tool: 'openssl', package: 'openssl', without: 'TLS' },
  // Hundreds of MB on disk with what they need: nothing to put on a developer's machine unasked.
  { tool: 'chromium', package: 'chromium', without: 'nbd-sdk/web and the picture of nbd map', onlyInCI: true },
  { tool: 'websockify', package: 'websockify', without: 'nbd-sdk/web in a browser', onlyInCI: true },
  { tool: 'sfdisk', package: 'fdisk', without: 'partition tables', onlyInCI: true },
  { tool: 'fdisk', package: 'fdisk', without: 'partition tables', onlyInCI: true },
  { tool: 'sgdisk', package: 'gdisk', without: 'partition tables', onlyInCI: true },
  { tool: 'zsh', package: 'zsh', without: 'completion in zsh', onlyInCI: true },
  { tool: 'fish', package: 'fish', without: 'completion in fish', onlyInCI: true },
  { tool: 'man', package: 'man-db', without: 'manual pages', onlyInCI: true },
  { tool: 'mandoc', package: 'mandoc', without: 'manual pages', onlyInCI: true },
  { tool: 'libvirtd', package: 'libvirt-daemon', without: 'backup of a running guest', onlyInCI: true },
  { tool: 'virsh', package: 'libvirt-clients', without: 'backup of a running guest', onlyInCI: true },
  { tool: 'qemu-system-x86_64', package: 'qemu-system-x86', without: 'backup of a running guest', onlyInCI: true },
];

const isCI = process.env.CI === 'true';
const say = (line) => process.stdout.write(`${line}\n`);

function isRunnable(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin', '/usr/local/sbin'];
const onPath = (name) => folders.some((folder) => folder !== '' && isRunnable(join(folder, name)));

function isThere(tool) {
  if (tool !== 'python3-libnbd') return onPath(tool);
  // Starting Python costs more than all other checks together, so look for the file first.
  if (existsSync('/usr/lib/python3/dist-packages/nbd.py')) return true;
  return isRunnable('/usr/bin/python3') && spawnSync('/usr/bin/python3', ['-c', 'import nbd']).status === 0;
}

const missing = () => NEEDS.filter(({ tool, onlyInCI = false }) => (isCI || !onlyInCI) && !isThere(tool));

function aptGet(...args) {
  const options = ['-qq', '-y', '-o', 'DPkg::Lock::Timeout=300', '-o', 'Acquire::Retries=3'];
  const result = spawnSync('apt-get', [...options, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    encoding: 'utf8',
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  });
  if (result.status !== 0) {
    const text = (result.error?.message ?? `${result.stderr}${result.stdout}`).trim().split('\n').slice(-3).join(' | ');
    say(`apt-get ${args[0]} failed: ${text}`);
  }
  return result.status === 0;
}

function install(packages) {
  say(`apt-get update`);
  aptGet('update');
  say(`apt-get install ${packages.join(' ')}`);
  if (aptGet('install', '--no-install-recommends', ...packages)) return;
  // One package that this release lacks must not keep the others away.
  for (const name of packages) aptGet('install', '--no-install-recommends', name);
}

let lacking = missing();
if (lacking.length > 0) {
  const mayInstall = process.env.NBD_SDK_NO_INSTALL !== '1' && process.getuid?.() === 0 && onPath('apt-get');
  if (mayInstall) {
    install([...new Set(lacking.map((need) => need.package))]);
    lacking = missing();
  }
  for (const need of lacking) {
    const verdict = isCI ? 'its specs will fail' : 'its specs will be skipped';
    say(`${need.tool} is missing (Debian package ${need.package}): ${need.without}; ${verdict}`);
  }
  if (lacking.length > 0 && isCI) process.exitCode = 1;
}

if ((isCI || process.env.NBD_SDK_TRIXIE === '1') && !hasTrixie()) {
  const why = trixie();
  // No failure, under CI=true either: not every machine may become another Debian's host.
  if (why !== null) say(`no Debian trixie root: ${why}; our client against qemu-nbd 10 will be skipped`);
}

function trixie() {
  if (process.env.NBD_SDK_NO_INSTALL === '1') return 'NBD_SDK_NO_INSTALL is set';
  const why = obstacle();
  if (why !== null) return why;
  if (!onPath('debootstrap')) install(['debootstrap']);
  if (!onPath('debootstrap')) return 'debootstrap is missing';
  say('debootstrap trixie');
  return makeTrixie();
}
