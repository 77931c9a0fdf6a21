// Tests of timeouts on a machine of any speed.

/**
 * Runs a test whose timeouts are short, and again with times ten and fifty times as long if it fails. On a busy machine
 * the preparations of a test may take longer than its short timeout. A test that holds at no pace fails. `pace` is the
 * factor by which the test multiplies its times.
 */
export async function atAnyPace<T>(test: (pace: number) => Promise<T>): Promise<T> {
  return test(1)
    .catch(() => test(10))
    .catch(() => test(50));
}

/** The promise, marked as handled: a test that fails before it awaits the promise leaves no unhandled rejection. */
export function handled<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined);
  return promise;
}
