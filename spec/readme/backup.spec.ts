// "Backing up a virtual machine": its shell commands, as they are written, with a guest that is off and with one that
// runs under libvirt (a guest without an operating system, emulated; QEMU's monitor writes to its disk).

import { spawn } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from '@jest/globals';

import { cliPath } from '../cli/support.js';
import { describeWith, findTool, runTool } from '../support/real-servers.js';
import { ROOT } from '../support/root.js';

/** The user of a session of libvirt where the tests run as root, whose libvirt is the system's. */
const NOBODY = 65534;

const [, section = ''] = readFileSync(join(ROOT, 'README.md'), 'utf8').split('### Backing up a virtual machine\n');
const [full = '', increment = '', restore = '', liveFull = '', liveIncrement = ''] = [
  ...(section.split(/^##/m)[0] ?? '').matchAll(/<!-- shell -->\n\n```sh\n([\s\S]*?)```/g),
].map(([, script]) => script as string);

let folder: string;
let env: Readonly<Record<string, string>>;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-backup-'));
  const bin = join(folder, 'bin');
  mkdirSync(bin);
  writeFileSync(join(bin, 'nbd'), `#!/bin/sh\nexec '${process.execPath}' '${await cliPath()}' "$@"\n`);
  chmodSync(join(bin, 'nbd'), 0o755);
  env = { PATH: `${bin}:${process.env['PATH'] ?? ''}` };
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** Runs commands in the folder; the output of the first that fails is the failure. */
async function shell(script: string, options = '-eu'): Promise<string> {
  const { code, stdout, stderr } = await runTool('sh', [options, '-c', script], { cwd: folder, env });
  if (code !== 0) throw new Error(`${script}\nexit code ${code}: ${stderr}${stdout}`);
  return stdout;
}

/** A part of what `qemu-img map` prints; `depth` counts backing files. */
interface Run {
  readonly length: number;
  readonly depth: number;
  readonly present: boolean;
}

/** What is different between two images, according to qemu-img. */
const compared = (one: string, other: string): Promise<string> => shell(`qemu-img compare -U ${one} ${other}`);
const IDENTICAL = 'Images are identical.\n';

describe('the section', () => {
  it('has five blocks of commands', () => {
    expect([full, increment, restore, liveFull, liveIncrement].map((script) => script.split('\n')[0])).toEqual([
      'qemu-img bitmap --add disk.qcow2 b0',
      'qemu-img create -q -f qcow2 -b full.qcow2 -F qcow2 monday.qcow2',
      'qemu-img create -q -f qcow2 restored.qcow2 10G',
      expect.stringMatching(/^echo "<domainbackup/),
      expect.stringMatching(/^socket="<server/),
    ]);
  });
});

describeWith(['qemu-img', 'qemu-nbd', 'qemu-io'], 'a guest that is off', () => {
  const write = (commands: string): Promise<string> => shell(`qemu-io -f qcow2 ${commands} disk.qcow2`);

  it('is backed up, in full and by an increment, and restored', async () => {
    await shell('qemu-img create -q -f qcow2 disk.qcow2 10G');
    await write("-c 'write -P 1 0 3M' -c 'write -P 2 5G 1M'");
    await shell(full);
    expect(await compared('disk.qcow2', 'full.qcow2')).toBe(IDENTICAL);
    await write("-c 'write -P 3 1M 64k' -c 'write -z 5G 128k' -c 'write -P 4 10239M 1M'");
    await shell(increment);
    expect(await compared('disk.qcow2', 'monday.qcow2')).toBe(IDENTICAL);
    await shell(restore);
    expect(await compared('disk.qcow2', 'restored.qcow2')).toBe(IDENTICAL);
    // Nothing is marked as changed any more, and the increment has the changes alone.
    expect(await shell('nbd map --map=qemu:dirty-bitmap:b0 [ qemu-nbd -r -f qcow2 -B b0 disk.qcow2 ]')).toMatch(
      /^ +0 +10737418240 +0 +clean\n$/,
    );
    const runs = JSON.parse(await shell('qemu-img map --output=json monday.qcow2')) as Run[];
    const own = runs.filter(({ depth, present }) => present && depth === 0);
    expect(own.reduce((sum, { length }) => sum + length, 0)).toBe(65_536 + 131_072 + 1_048_576);
  });
});

const LIBVIRT = ['virsh', 'libvirtd', 'qemu-system-x86_64', 'qemu-img', 'qemu-nbd', 'setpriv'];

describeWith(LIBVIRT, 'a guest that runs under libvirt', () => {
  let end: () => Promise<void>;

  /** A libvirt of this test's own: that of an ordinary user, whose files are all in the folder. */
  beforeEach(async () => {
    const isRoot = userInfo().uid === 0;
    const own = (...names: string[]): void => {
      for (const name of names) if (isRoot) chownSync(join(folder, name), NOBODY, NOBODY);
    };
    mkdirSync(join(folder, 'run'), { mode: 0o700 });
    mkdirSync(join(folder, 'home/libvirt'), { recursive: true });
    writeFileSync(join(folder, 'home/libvirt/qemu.conf'), 'security_driver = "none"\nstdio_handler = "file"\n');
    chmodSync(folder, 0o755);
    own('', 'run', 'home', 'home/libvirt');
    const home = join(folder, 'home');
    const daemon = findTool('libvirtd') ?? '';
    const as = isRoot ? ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups'] : [];
    const [program, ...args] = [...as, daemon];
    const libvirtd = spawn(program, args, {
      cwd: folder,
      stdio: 'ignore',
      env: {
        ...process.env,
        HOME: home,
        XDG_CONFIG_HOME: home,
        XDG_CACHE_HOME: home,
        XDG_RUNTIME_DIR: join(folder, 'run'),
      },
    });
    const ended = new Promise<void>((resolve) => libvirtd.once('close', () => resolve()));
    end = async () => {
      await shell('virsh destroy vm').catch(() => undefined);
      libvirtd.kill();
      await ended;
    };
    const socket = join(folder, 'run/libvirt/libvirt-sock');
    env = { ...env, VIRSH_DEFAULT_CONNECT_URI: `qemu+unix:///session?socket=${socket}` };
    await shell(`until virsh -q version >/dev/null 2>&1; do kill -0 ${libvirtd.pid ?? 0}; sleep 0.1; done`);

    await shell('qemu-img create -q -f qcow2 disk.qcow2 10G && qemu-io -f qcow2 -c "write -P 1 0 3M" disk.qcow2');
    own('disk.qcow2');
    writeFileSync(join(folder, 'vm.xml'), domain());
    await shell('virsh create vm.xml');
  });
  afterEach(() => end());

  const domain = (): string => `<domain type='qemu'><name>vm</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
    <os><type arch='x86_64' machine='pc'>hvm</type></os>
    <devices>
      <emulator>${findTool('qemu-system-x86_64') ?? ''}</emulator>
      <disk type='file' device='disk'>
        <driver name='qemu' type='qcow2'/><source file='${folder}/disk.qcow2'/><target dev='vda' bus='virtio'/>
      </disk>
      <controller type='usb' model='none'/><memballoon model='none'/>
    </devices></domain>`;

  const DEVICE = '/machine/peripheral/virtio-disk0/virtio-backend';
  const write = (command: string): Promise<string> =>
    shell(`virsh qemu-monitor-command vm --hmp 'qemu-io -d ${DEVICE} "${command}"'`);
  const checkpoints = async (): Promise<string[]> =>
    (await shell('virsh checkpoint-list vm --name')).split('\n').filter((name) => name !== '');

  it('is backed up while it runs, in full and by an increment, also after one that failed', async () => {
    await shell(liveFull);
    expect(await checkpoints()).toEqual(['sunday']);
    await write('write -P 3 1M 64k');
    await write('write -z 2M 64k');
    // A copy that fails: the changes so far are in the next increment.
    await shell(`nbd() { return 1; }\n${liveIncrement}`);
    expect(await checkpoints()).toEqual(['sunday']);
    await write('write -P 4 9G 1M');
    await shell(liveIncrement);
    expect(await checkpoints()).toEqual(['monday']);
    await shell('virsh destroy vm');
    expect(await compared('disk.qcow2', 'monday.qcow2')).toBe(IDENTICAL);
    await shell(restore);
    expect(await compared('disk.qcow2', 'restored.qcow2')).toBe(IDENTICAL);
  });
});
