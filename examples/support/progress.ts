// Shows the progress of a known number of bytes: one line that is updated on a terminal, a few plain lines elsewhere.

const MIB = 1024 ** 2;

/** Returns a function that takes the number of bytes done so far. Each line begins with `what`. */
export function showProgress(what: string, size: bigint): (done: bigint) => void {
  let shown = 0;
  return (done) => {
    const percent = Number((done * 100n) / size);
    const step = process.stdout.isTTY ? percent : percent - (percent % 25);
    if (step === shown) return;
    shown = step;
    const line = `${what}: ${formatBytes(done)} of ${formatBytes(size)} (${step} %)`;
    if (!process.stdout.isTTY) console.log(line);
    else process.stdout.write(`\x1b[K${line}${done === size ? '\n' : '\r'}`);
  };
}

/** MiB with one decimal; bytes below 1 MiB. */
export function formatBytes(bytes: bigint): string {
  return bytes < MIB ? `${bytes} bytes` : `${(Number(bytes) / MIB).toFixed(1)} MiB`;
}
