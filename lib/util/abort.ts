// Shares AbortSignal listeners. A signal gets one real listener, however many connections wait for it: Node warns of a
// leak at eleven, and each costs a microsecond.

const watched = new WeakMap<AbortSignal, { readonly callbacks: Set<() => void>; readonly listener: () => void }>();

/** Calls `callback` once when the signal is aborted. The signal must not be aborted yet; a callback is added once. */
export function addAbortListener(signal: AbortSignal, callback: () => void): void {
  const entry = watched.get(signal);
  if (entry !== undefined) {
    entry.callbacks.add(callback);
    return;
  }
  const callbacks = new Set([callback]);
  const listener = (): void => {
    watched.delete(signal);
    for (const each of callbacks) each();
  };
  watched.set(signal, { callbacks, listener });
  signal.addEventListener('abort', listener, { once: true });
}

/** Does nothing if the callback is not registered (any more). */
export function removeAbortListener(signal: AbortSignal, callback: () => void): void {
  const entry = watched.get(signal);
  if (entry?.callbacks.delete(callback) !== true || entry.callbacks.size > 0) return;
  watched.delete(signal);
  signal.removeEventListener('abort', entry.listener);
}
