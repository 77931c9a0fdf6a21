// Backs up a qcow2 image: in full, then what a dirty bitmap marks as changed, into a chain of qcow2 files; restores it.
import { execFileSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compare, CONTEXT_BASE_ALLOCATION, copy, NbdConnection } from 'nbd-sdk';

const MIB = 1024 * 1024;
const BITMAP = 'b0';
const folder = await mkdtemp(join(tmpdir(), 'nbd-backup-'));
const path = (name: string): string => join(folder, `${name}.qcow2`);
const qemuImg = (...args: string[]): Buffer => execFileSync('qemu-img', args);

/** Serves an image until the connection is shut down, which waits for qemu-nbd and fails if qemu-nbd does. */
function open(name: string, ...options: string[]): Promise<NbdConnection> {
  const metaContexts = [CONTEXT_BASE_ALLOCATION, `qemu:dirty-bitmap:${BITMAP}`];
  return NbdConnection.connect(
    { socketActivation: ['qemu-nbd', '-f', 'qcow2', ...options, path(name)] },
    { metaContexts },
  );
}

/** Copies an image to a new one, which has the backing file of an increment, or none. */
async function backUp(from: string, to: string, backing?: string): Promise<void> {
  if (backing === undefined) qemuImg('create', '-q', '-f', 'qcow2', path(to), `${64 * MIB}`);
  else qemuImg('create', '-q', '-f', 'qcow2', '-b', path(backing), '-F', 'qcow2', path(to));
  const bitmap = backing === undefined ? undefined : BITMAP;
  await using source = await open(from, '-r', ...(bitmap === undefined ? [] : ['-B', bitmap]));
  await using destination = await open(to);
  const { total, read, zeroed } = await copy(source, destination, { flush: true, ...(bitmap && { bitmap }) });
  console.log(`${to}: ${total} bytes, of which ${read} were read and ${zeroed} zeroed`);
}

/** Stands for the guest. QEMU keeps the bitmap up to date for all writers of the image. */
async function change(offset: number, text: string): Promise<void> {
  await using disk = await open('disk');
  await disk.pwrite(Buffer.alloc(MIB, text), offset);
  await disk.zero(MIB, offset + MIB);
}

try {
  qemuImg('create', '-q', '-f', 'qcow2', path('disk'), `${64 * MIB}`);
  await change(0, 'the first day');
  qemuImg('bitmap', '--add', path('disk'), BITMAP);
  await backUp('disk', 'full');
  for (const [increment, backing] of [['monday', 'full'] as const, ['tuesday', 'monday'] as const]) {
    await change(increment === 'monday' ? 8 * MIB : 0, increment);
    await backUp('disk', increment, backing);
    // Only now: had the backup failed, the next increment would contain these changes too.
    qemuImg('bitmap', '--clear', path('disk'), BITMAP);
  }
  await backUp('tuesday', 'restored');
  await using disk = await open('disk', '-r');
  await using restored = await open('restored', '-r');
  console.log(`restored: ${(await compare(disk, restored)).equal ? 'equal' : 'different'}`);
} finally {
  await rm(folder, { recursive: true });
}
