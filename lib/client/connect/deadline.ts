// Runs work under the caller's signal and a deadline.

import { addAbortListener, removeAbortListener } from '../../util/abort.js';

/**
 * Runs `work` with a controller whose signal is aborted by `outer`, or after `timeout` milliseconds (0: never) with the
 * error that `makeError` returns; `work` may abort it too. Leaves no timer and no listener. The signal may already be
 * aborted when `work` starts: a listener of the caller's may have done that meanwhile.
 */
export async function withDeadline<Result>(
  outer: AbortSignal | undefined,
  timeout: number,
  makeError: () => Error,
  work: (controller: AbortController) => Promise<Result>,
): Promise<Result> {
  const controller = new AbortController();
  const onAbort = (): void => {
    controller.abort(outer?.reason);
  };
  const onTimeout = (): void => {
    controller.abort(makeError());
  };
  if (outer?.aborted === true) onAbort();
  else if (outer !== undefined) addAbortListener(outer, onAbort);
  const timer = timeout > 0 ? setTimeout(onTimeout, timeout) : null;
  try {
    return await work(controller);
  } finally {
    if (timer !== null) clearTimeout(timer);
    if (outer !== undefined) removeAbortListener(outer, onAbort);
  }
}
