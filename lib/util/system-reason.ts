// The reason of a system error, for a message that already names the file.

/** Node's `ENOENT: no such file or directory, open 'x'` as C programs print it: `No such file or directory`. */
export function systemReason(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  const reason = /^E[A-Z0-9]+: ([^,]*)/.exec(text)?.[1] ?? text;
  return `${reason.charAt(0).toUpperCase()}${reason.slice(1)}`;
}
