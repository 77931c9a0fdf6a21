// What the system said, for a message that names the file already.

/** Node's `ENOENT: no such file or directory, open 'x'` as C programs say it: `No such file or directory`. */
export function systemReason(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  const reason = /^E[A-Z0-9]+: ([^,]*)/.exec(text)?.[1] ?? text;
  return `${reason.charAt(0).toUpperCase()}${reason.slice(1)}`;
}
