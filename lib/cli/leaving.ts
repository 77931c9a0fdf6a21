// The end of the process.

/** The signals that end a command, with the resulting exit codes. */
export const SIGNALS: Readonly<Record<string, number>> = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 };

export const exitCodeOf = (signal: string): number => SIGNALS[signal] ?? 1;

const lastActs = new Set<() => void>();

/** Registers what is done on a second signal, which means that the user does not want to wait any longer. */
export function onImpatience(act: () => void): void {
  lastActs.add(act);
}

/** Handles the second signal: exits without waiting. */
export function leaveNow(code: number): void {
  for (const act of lastActs) act();
  void leave(code, 0);
}

/** Milliseconds that work in the thread pool may take to finish. */
const PATIENCE = 300;
const POLL_DELAY = 10;

/**
 * Ends the process. exit() waits for the work of the thread pool, possibly for ever: a read from a device that sends
 * nothing, or a name look-up without an answer. After a signal the process does not wait for that. It ends itself with
 * the same signal, so that a shell reports the same exit code.
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
