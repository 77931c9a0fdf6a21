// The checks of a call that cannot be put on a connection at once: the same that a connection makes, so that bad input
// is refused before anything waits.

import { lifecycleOf } from '../../client/api/settings.js';
import type { NbdConnection } from '../../client/node.js';
import { checkNames } from '../../client/options/options.js';
import { NbdStrictError } from '../../errors.js';
import * as spec from '../../protocol/commands.js';
import { checkStrict, toBytes, toCallback, toFlags, toU64 } from '../../protocol/strict.js';
import { ReadIntoTask, StatusTask, StructuredTask, type Task, WriteTask } from './task.js';

/** Throws NbdStrictError for a call that `connection`, whatever its state is now, would refuse. */
export function checkTask(task: Task, connection: NbdConnection): void {
  const { method } = task.spec;
  if (task instanceof ReadIntoTask || task instanceof WriteTask) toBytes(task.buffer, method);
  const count = toU64(task.count, method, 'count');
  const offset = toU64(task.offset, method, 'offset');
  const flags = toFlags(task.flags, method);
  const { strict, session } = lifecycleOf(connection);
  if (strict !== null) checkStrict(task.spec, count, offset, flags, strict);
  if (task instanceof StructuredTask) toCallback(task.onChunk, method, 'chunk');
  if (!(task instanceof StatusTask) || task.spec !== spec.BLOCK_STATUS_FILTER) return;
  const negotiated = [...(session?.negotiated.contexts?.values() ?? [])];
  for (const name of checkNames(method, task.contexts)) {
    if (negotiated.includes(name)) continue;
    throw new NbdStrictError(`${method}: context ${JSON.stringify(name)} was not negotiated`, {
      code: 'EINVAL',
      syscall: method,
    });
  }
}
