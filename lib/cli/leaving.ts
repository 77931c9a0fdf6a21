// The end of the process.

/** The signals that end a command, and its exit codes then. */
export const SIGNALS: Readonly<Record<string, number>> = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 };

export const exitCodeOf = (signal: string): number => SIGNALS[signal] ?? 1;

const lastActs = new Set<() => void>();

/** What is done when a second signal says that nothing is to be waited for any more. */
export function onImpatience(act: () => void): void {
  lastActs.add(act);
}

/** The second signal. */
export function leaveNow(code: number): void {
  for (const act of lastActs) act();
  void leave(code, 0);
}

/** How long what occupies the thread pool may take to finish. */
const PATIENCE = 300;
const POLL_DELAY = 10;

/**
 * Ends the process. exit() waits for what the thread pool is doing, for ever if that is a read from a device that has
 * nothing to say or a look-up that gets no answer. After a signal the process does not wait: it is ended by that same
 * signal, which is the exit code as a shell reports it.
 */
export async function leave(code: number, patience = PATIENCE): Promise<never> {
  const signal = Object.keys(SIGNALS).find((name) => SIGNALS[name] === code);
  if (signal !== undefined) {
    for (let waited = 0; isPoolBusy() && waited < patience; waited += POLL_DELAY) {
      await new Promise((resolve) => setTimeout(resolve, POLL_DELAY));
    }
    if (isPoolBusy()) {
      process.removeAllListeners(signal);
      process.kill(process.pid, signal);
    }
  }
  process.exit(code);
}

const isPoolBusy = (): boolean =>
  process.getActiveResourcesInfo().some((resource) => /^(FSReq|FileHandleCloseReq|GetAddrInfoReq)/i.test(resource));
