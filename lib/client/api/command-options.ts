// The options that a promise command accepts in place of its flag mask. The positional form is the fast one: it costs a
// typeof, and everything else is here.

import type { NbdCommandOptions } from '../export.js';
import { toFlags } from '../../protocol/strict.js';
import { anAbortSignal, checkOptions, type OptionTable, refuse, shown } from '../../util/option-checks.js';

const COMMAND_OPTIONS: OptionTable<NbdCommandOptions> = {
  // The command checks the mask itself, as in the positional form.
  flags: (where, value) => {
    if (typeof value === 'number') return value;
    throw refuse(where, `must be an unsigned 32-bit number, not ${shown(value)}`);
  },
  signal: anAbortSignal,
};

function unpacked(method: string, options: unknown, signal: unknown): NbdCommandOptions {
  if (options instanceof AbortSignal) throw refuse(method, 'flags must be a number: pass the signal as { signal }');
  // The same refusal as that of any other value that is neither.
  if (options === null) toFlags(options, method);
  const checked = checkOptions<NbdCommandOptions>(method, options, COMMAND_OPTIONS);
  if (signal === undefined) return checked;
  throw refuse(method, 'signal must be in the options or an argument after the flags, not after options');
}

/**
 * Calls a command again whose flags are not a mask but options, with what is in them: `target[method](...args, flags,
 * signal)`. There is no closure in its place, since that would cost every call of the command something.
 */
export function withOptions<Method extends string>(
  target: Readonly<Record<Method, unknown>>,
  method: Method,
  args: readonly unknown[],
  options: unknown,
  signal: unknown,
): Promise<never> {
  const command = target[method] as (...args: readonly unknown[]) => Promise<never>;
  let given: NbdCommandOptions;
  try {
    given = unpacked(method, options, signal);
  } catch (error) {
    const refused = (): never => {
      throw error;
    };
    // Every command refuses this mask too, but only after what it does before any check: preadInto clears its buffer.
    return command.call(target, ...args, NaN).then(refused, refused);
  }
  return command.call(target, ...args, given.flags ?? 0, given.signal);
}

/** {@link withOptions} for the arguments of a block status command that end in flags and a signal, if it has options. */
export function statusWithOptions<Method extends string>(
  target: Readonly<Record<Method, unknown>>,
  method: Method,
  args: readonly unknown[],
  rest: readonly unknown[],
): Promise<never> | null {
  const at = typeof rest[0] === 'function' ? 1 : 0;
  if (typeof rest[at] !== 'object') return null;
  return withOptions(target, method, [...args, ...rest.slice(0, at)], rest[at], rest[at + 1]);
}
