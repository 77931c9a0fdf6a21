// Which server an export is on, as far as a URI shows it: what limits and statistics are counted by.

/** `host:port`, the path of a socket, or the text itself where it is not an NBD URI. */
export function serverOf(target: string): string {
  const [, scheme = ''] = /^([a-z+]+):\/\//i.exec(target) ?? [];
  if (!/^nbds?(\+|$)/i.test(scheme)) return target;
  try {
    // The parser has no rules for the scheme of NBD, and wants a host, which the URI of a Unix socket has not.
    const url = new URL(target.replace(/^[a-z+]+:\/\/(?=[/?#])/i, 'http://localhost').replace(/^[a-z+]+:/i, 'http:'));
    const socket = url.searchParams.get('socket');
    if (socket !== null) return socket;
    const port = /^[a-z+]+:\/\/[^/?#]*:(\d+)(?=[/?#]|$)/i.exec(target)?.[1] ?? '10809';
    return `${url.hostname}:${port}`;
  } catch {
    return target;
  }
}
