// Work under a caller's signal and a deadline of its own.

import { addAbortListener, removeAbortListener } from '../../util/abort.js';

/**
 * Runs `work` with a signal that is aborted by `outer`, by `timeout` milliseconds (0: none) with the error that
 * `makeError` then makes, or by the returned controller. Leaves no timer and no listener. The signal may be aborted when
 * the work begins: a listener of the caller's has done that meanwhile.
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
