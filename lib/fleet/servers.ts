// Which server an export is on, as far as a URI shows it: what limits and statistics are counted by.

/** `host:port`, the path of a socket, or the text itself where it is not an NBD URI. */
export function serverOf(target: string): string {
  const [, scheme = ''] = /^([a-z+]+):\/\//i.exec(target) ?? [];
  if (!/^nbds?(\+|$)/i.test(scheme)) return target;
  const { authority = '', query = '' } =
    /^[^:]+:\/\/(?<authority>[^/?#]*)[^?#]*(?:\?(?<query>[^#]*))?/.exec(target)?.groups ?? {};
  const socket = new URLSearchParams(query).get('socket');
  if (socket !== null) return socket;
  // Without the user that ssh may have in front of it.
  const host = authority.slice(authority.lastIndexOf('@') + 1).toLowerCase();
  return /:\d+$/.test(host) ? host : `${host || 'localhost'}:10809`;
}
