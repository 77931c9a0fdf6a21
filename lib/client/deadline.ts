// Work under a caller's signal and a deadline of its own.

/**
 * Runs `work` with a signal that is aborted by `outer`, by `timeout` milliseconds (0: none) with the error that
 * `makeError` then makes, or by the returned controller. Leaves no timer and no listener.
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
  outer?.addEventListener('abort', onAbort);
  const timer = timeout > 0 ? setTimeout(onTimeout, timeout) : null;
  try {
    return await work(controller);
  } finally {
    if (timer !== null) clearTimeout(timer);
    outer?.removeEventListener('abort', onAbort);
  }
}
