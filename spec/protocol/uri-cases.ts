// What is accepted and what is refused: every row is given to parseUri, and to libnbd where it is installed.

/** Where libnbd treats a row differently: the minor version of 1.x from which it agrees, or why no version does. */
export type Libnbd = number | string | undefined;

const tcp = { scheme: 'nbd', tls: false, transport: 'tcp', exportName: '', unknownParameters: [] };
const local = { ...tcp, host: 'localhost', port: 10809 };
const one = { ...tcp, host: '127.0.0.1', port: 1 };
const unix = { scheme: 'nbd+unix', tls: false, transport: 'unix', exportName: 'x', socketPath: '/s' };
const nbdUnix = { ...unix, unknownParameters: [] };
const nbdsUnix = { ...nbdUnix, scheme: 'nbds+unix', tls: true };
const vsock = { ...tcp, scheme: 'nbd+vsock', transport: 'vsock', cid: 2, port: 10809 };
const ssh = { ...tcp, scheme: 'nbd+ssh', transport: 'ssh', host: 'h', port: 22, nbdPort: 10809, compress: false };
// Rows that libnbd is not given.
export const NO_SSH = 'it would run ssh';
export const NO_DNS = 'it would look the host up';

export const ACCEPTED: readonly (readonly [uri: string, result: object, libnbd?: Libnbd])[] = [
  // Export names (U01 to U03).
  ['nbd://localhost', local],
  ['nbd://localhost/', local],
  ['nbd://localhost//disk', { ...local, exportName: '/disk' }],
  ['nbd://localhost/hello%20world', { ...local, exportName: 'hello world' }],
  ['nbd://localhost/%C3%A9', { ...local, exportName: 'é' }],
  ['nbd://localhost/%EF%BB%BFx', { ...local, exportName: '\uFEFFx' }],
  ['nbd://localhost/%F0%9F%92%BE', { ...local, exportName: '💾' }],
  ['nbd://localhost/a%2Fb%2f%25', { ...local, exportName: 'a/b/%' }],
  ['nbd://localhost/%2541', { ...local, exportName: '%41' }],
  ['nbd://localhost/..//../a/./b/', { ...local, exportName: '..//../a/./b/' }],
  ["nbd://localhost/a+b;c=d,e!$&'()*@:~", { ...local, exportName: "a+b;c=d,e!$&'()*@:~" }],
  ['nbd://localhost/x?', { ...local, exportName: 'x' }],
  [`nbd://localhost/${'%C3%A9'.repeat(2048)}`, { ...local, exportName: 'é'.repeat(2048) }],

  // Scheme and authority (U05).
  ['NbD://127.0.0.1:1/X', { ...one, exportName: 'X' }, 22],
  ['nbds://127.0.0.1:1', { ...one, scheme: 'nbds', tls: true }],
  ['nbd://[::1]:10810/x', { ...one, host: '::1', port: 10810, exportName: 'x' }],
  ['nbd://[::1]', { ...one, host: '::1', port: 10809 }],
  ['nbd://[2001:DB8::192.0.2.1]:1', { ...one, host: '2001:DB8::192.0.2.1' }],
  ['nbd://[fe80::1%25eth0]:1', { ...one, host: 'fe80::1%eth0' }],
  ['nbd://[fe80::1%eth0]:1', { ...one, host: 'fe80::1%eth0' }],
  ['nbd://127%2E0.0.1:1', one],
  ['nbd://127.0.0.1:65535', { ...one, port: 65535 }],
  ['nbd://127.0.0.1:00001', one],
  ['nbd://', local],
  ['nbd:///x', { ...local, exportName: 'x' }],
  ['nbd://:1', { ...local, port: 1 }],
  ['nbd://alice@127.0.0.1:1', { ...one, tlsUsername: 'alice' }],
  ['nbd://al%69ce%40%3A%2F@127.0.0.1:1', { ...one, tlsUsername: 'alice@:/' }],
  ['nbd://@127.0.0.1:1', one, 'libxml2 takes the rest of the URI for the user name'],
  ['nbd://127.0.0.1:9/?nbd-port=1', one, 24],
  ['nbd://127.0.0.1/?nbd-port=7&nbd-port=1', one, 24],

  // Unix sockets (U06, U08).
  ['nbd+unix:///x?socket=/s', nbdUnix],
  ['nbd+unix://?socket=/s', { ...nbdUnix, exportName: '' }],
  ['nbd+unix:///x?socket=%2Fs', nbdUnix],
  ['nbd+unix:///x?socket=s%20+%20s', { ...nbdUnix, socketPath: 's + s' }],
  ['nbd+unix:///x?socket=/a=b', { ...nbdUnix, socketPath: '/a=b' }],
  ['nbd+unix:///?socket=%00/abstract', { ...nbdUnix, exportName: '', socketPath: '\0/abstract' }],
  ['nbd+unix:///x?SocKet=/s', nbdUnix, 22],
  ['nbd+unix:///x?so%63ket=/s', nbdUnix],
  ['nbd+unix:///x?socket=/t&socket=/s', nbdUnix],
  ['nbd+unix:///x?&&=v&socket=/s&&', nbdUnix],
  ['nbd+unix:///x?foo=1;socket=/s', { ...nbdUnix, unknownParameters: ['foo'] }],
  ['nbd+unix:///x?socket=/s;t&foo', { ...nbdUnix, socketPath: '/s;t', unknownParameters: ['foo'] }],
  ['nbd+unix://alice@host:99999/x?socket=/s', { ...nbdUnix, tlsUsername: 'alice' }],

  // TLS (U09 to U12: what the URI contains; checkUriAllowed decides what it may contain).
  ['nbds+unix://alice@/x?socket=/s', { ...nbdsUnix, tlsUsername: 'alice' }],
  ['nbds+unix://alice@/x?socket=/s&tls-username=bob', { ...nbdsUnix, tlsUsername: 'bob' }, 24],
  ['nbds+unix://alice@/x?socket=/s&tls-username=', { ...nbdsUnix, tlsUsername: 'alice' }, 'it clears the user name'],
  ['nbds+unix:///x?socket=/s&tls-hostname=a%20b', { ...nbdsUnix, tlsHostname: 'a b' }],
  ['nbds+unix:///x?socket=/s&TLS-HOSTNAME=a&tls-hostname=', nbdsUnix],
  ['nbds+unix:///x?socket=/s&tls-verify-peer=0', { ...nbdsUnix, tlsVerifyPeer: false }],
  ['nbds+unix:///x?socket=/s&tls-verify-peer=No', { ...nbdsUnix, tlsVerifyPeer: false }],
  ['nbds+unix:///x?socket=/s&tls-verify-peer=0&tls-verify-peer=on', { ...nbdsUnix, tlsVerifyPeer: true }],
  ['nbds+unix:///x?socket=/s&tls-type=psk', { ...nbdsUnix, tlsType: 'psk' }],
  ['nbds+unix:///x?socket=/s&tls-type=X509', { ...nbdsUnix, tlsType: 'x509' }],
  ['nbds+unix:///x?socket=/s&tls-type=anon', { ...nbdsUnix, tlsType: 'anon' }],
  ['nbds+unix:///x?socket=/s&tls-certificates=/etc/pki', { ...nbdsUnix, tlsCertificates: '/etc/pki' }],
  ['nbds+unix:///x?socket=/s&tls-psk-file=/etc/psk', { ...nbdsUnix, tlsPskFile: '/etc/psk' }],
  ['nbds+unix:///x?socket=/s&tls-priority=NORMAL:%2bA', { ...nbdsUnix, tlsPriority: 'NORMAL:+A' }],
  ['nbd://127.0.0.1:1/?tls-hostname=h', { ...one, tlsHostname: 'h' }],

  // Parameters without effect (U13).
  ['nbd://127.0.0.1:1/?foo=1&Bar&foo=2&compress=yes', { ...one, unknownParameters: ['foo', 'Bar', 'compress'] }],
  ['nbd+unix:///x?socket=/s&nbd-port=http', { ...nbdUnix, unknownParameters: ['nbd-port'] }],

  // AF_VSOCK.
  ['nbd+vsock://', vsock],
  ['nbd+vsock:///', vsock],
  ['nbds+vsock://5:6/x', { ...vsock, scheme: 'nbds+vsock', tls: true, cid: 5, port: 6, exportName: 'x' }],
  ['nbd+vsock://%31:2147483647', { ...vsock, cid: 1, port: 0x7fff_ffff }],
  ['nbd+vsock://1?nbd-port=4294967295', { ...vsock, cid: 1, port: 0xffff_ffff }],

  // ssh.
  ['nbd+ssh://h/', ssh, NO_SSH],
  [
    'nbds+SSH://u.s-er@h:23/',
    { ...ssh, scheme: 'nbds+ssh', tls: true, user: 'u.s-er', tlsUsername: 'u.s-er', port: 23 },
    NO_SSH,
  ],
  ['nbd+ssh://u@h/?tls-username=t', { ...ssh, user: 'u', tlsUsername: 't' }, NO_SSH],
  ['nbd+ssh://h/?nbd-port=5&compress=true', { ...ssh, nbdPort: 5, compress: true }, NO_SSH],
  ['nbd+ssh://h/?socket=/run/nbd%2bx.sock', { ...ssh, socketPath: '/run/nbd+x.sock' }, NO_SSH],
  ['nbd+ssh://[fe80::1%25eth0]/', { ...ssh, host: 'fe80::1%eth0' }, NO_SSH],
];

export const REFUSED: readonly (readonly [uri: string, reason: RegExp, libnbd?: Libnbd])[] = [
  ['', /scheme is not one of nbd, nbds, /],
  ['/tmp/nbd.sock', /has no scheme.*nbd\+unix:\/\/\/\?socket=/],
  ['localhost:10809', /has no scheme.*nbd:\/\/localhost:PORT/],
  ['http://127.0.0.1/', /scheme is not one of/],
  ['nbd+tcp://127.0.0.1/', /scheme is not one of/],
  [' nbd://127.0.0.1/', /scheme is not one of/],
  ['nbd:127.0.0.1', /does not start with nbd:\/\//],
  ['nbd:/x', /does not start with nbd:\/\//],
  ['nbd:unix:/s', /does not start with nbd:\/\//],
  ['NBD+UNIX:/x?socket=/s', /does not start with nbd\+unix:\/\//],
  ['nbd://127.0.0.1:1/a#b', /fragment.*%23/, 'it ignores fragments'],

  // Export names (U04).
  ['nbd://127.0.0.1:1/a%00b', /export name contains a NUL/, 'it cuts the name at the NUL'],
  ['nbd://127.0.0.1:1/%zz', /export name contains a % without/],
  ['nbd://127.0.0.1:1/a%2', /export name contains a % without/],
  ['nbd://127.0.0.1:1/%FF', /export name is not UTF-8/, 'it sends the byte'],
  ['nbd://127.0.0.1:1/%C0%AF', /export name is not UTF-8/, 'it sends the bytes'],
  ['nbd://127.0.0.1:1/%ED%A0%80', /export name is not UTF-8/, 'it sends the bytes'],
  ['nbd://127.0.0.1:1/a b', /export name contains U\+0020/],
  ['nbd://127.0.0.1:1/a\n', /export name contains U\+000A/],
  ['nbd://127.0.0.1:1/\u{1F4BE}', /export name contains U\+1F4BE/],
  ['nbd://127.0.0.1:1/[a]', /export name contains U\+005B/],
  ['nbd://127.0.0.1:1/a\\b', /export name contains U\+005C/],

  // Authority (U14).
  ['nbd://user@127.0.0.1:99999/', /port is not a number from 1 to 65535/, 'it keeps the low 16 bits of the port'],
  ['nbd://127.0.0.1:0/', /port is not a number/, 'it takes 0 for the default'],
  ['nbd://127.0.0.1:/', /port is not a number/],
  ['nbd://127.0.0.1:12a/', /port is not a number/],
  ['nbd://127.0.0.1:-1/', /port is not a number/],
  ['nbd://127.0.0.1:99999999999999999999/', /port is not a number/],
  ['nbd://127.0.0.1:1/?nbd-port=', /nbd-port is not a number/, 'it passes the text to getaddrinfo'],
  ['nbd://127.0.0.1:1/?nbd-port=65536', /nbd-port is not a number/, 'it passes the text to getaddrinfo'],
  ['nbd://::1/', /host is malformed/],
  ['nbd://[::1/', /host is malformed/],
  ['nbd://[::1]x/', /host is malformed/],
  ['nbd://[]/', /not an IPv6 address/, NO_DNS],
  ['nbd://[127.0.0.1]/', /not an IPv6 address/, NO_DNS],
  ['nbd://[v1.x]/', /not an IPv6 address/, NO_DNS],
  ['nbd://[fe80::1%25]/', /malformed zone/, NO_DNS],
  ['nbd://a b/', /host contains U\+0020/],
  ['nbd://a%20b/', /host contains a character not allowed/, NO_DNS],
  ['nbd://127.0.0.1%00b:1/', /host contains a NUL/, 'it cuts the name at the NUL'],
  ['nbd://%2Fa/', /host contains a character not allowed/, NO_DNS],
  ['nbd://a%/', /host contains a % without/],
  ['nbd://a@b@127.0.0.1/', /more than one '@'/],
  ['nbd://a:b@127.0.0.1/', /contains a password/, 'it makes the password a part of the TLS user name'],
  ['nbd://a%FF@127.0.0.1/', /user name is not UTF-8/, 'it keeps the byte'],

  // Unix sockets (U07).
  ['nbd+unix:///x', /no socket parameter \(did you mean nbd\+unix:\/\/\/\?socket=PATH\?\)/],
  ['nbds+unix://tmp/nbd.sock', /no socket parameter \(did you mean nbds\+unix/],
  ['nbd+unix:///x?foo=1;socket=/s&bar', /no socket parameter/],
  ['nbd+unix:///x?socket', /socket is empty/, 'it takes an empty path for an abstract name'],
  ['nbd+unix:///x?socket=%00', /empty abstract name/, 'it cuts the path at the NUL'],
  ['nbd+unix:///x?socket=/a%00b', /socket parameter contains a NUL/, 'it cuts the path at the NUL'],
  ['nbd+unix:///x?socket=/%FF', /socket parameter is not UTF-8/, 'it keeps the byte'],
  ['nbd+unix:///x?socket=/%zz', /query contains a % without/],
  ['nbd+unix:///x?socket=/a b', /query contains U\+0020/],
  ['nbd://127.0.0.1:1/?socket=/s', /cannot be used with nbd:\/\/ \(did you mean nbd\+unix/],
  ['nbds://127.0.0.1:1/?SOCKET', /cannot be used with nbds:\/\/ \(did you mean nbds\+unix/, 22],
  ['nbd+vsock://2/?socket=/s', /cannot be used with nbd\+vsock:\/\//],

  // TLS (U11).
  ['nbds+unix:///x?socket=/s&tls-type=gpg', /tls-type is not one of anon, x509, psk/, 'it ignores tls-type'],
  ['nbds+unix:///x?socket=/s&tls-verify-peer=2', /tls-verify-peer is neither/, 22],
  ['nbds+unix:///x?socket=/s&tls-verify-peer', /tls-verify-peer is neither/, 22],
  ['nbds+unix:///x?socket=/s&tls-certificates=', /tls-certificates is empty/, 'it fails later'],
  ['nbds+unix:///x?socket=/s&tls-psk-file', /tls-psk-file is empty/, 'it fails later'],
  ['nbds+unix:///x?socket=/s&tls-priority=', /tls-priority is empty/, 'it fails later'],
  [
    'nbds+unix:///x?socket=/s&tls-hostname=a%00b',
    /tls-hostname parameter contains a NUL/,
    'it cuts the name at the NUL',
  ],
  ['nbds+unix:///x?socket=/s&f%00=1', /query contains a NUL/, 'it cuts the name at the NUL'],

  // AF_VSOCK.
  ['nbd+vsock://host/', /vsock CID is not a number/],
  ['nbd+vsock://2a/', /vsock CID is not a number/, 'it ignores the tail'],
  ['nbd+vsock://-1/', /vsock CID is not a number/, 'it wraps around'],
  ['nbd+vsock://4294967296/', /vsock CID is not a number from 0 to 4294967295/, 'it wraps around'],
  ['nbd+vsock://[::2]/', /vsock CID is not a number/],
  ['nbd+vsock://1?nbd-port=4294967296', /nbd-port is not a number/, 'it wraps around'],

  // ssh: nothing that ssh, its configuration or the server's shell could take for anything but a name.
  ['nbd+ssh:///x', /requires a host/, NO_SSH],
  ['nbd+ssh://-oProxyCommand=x/', /not start with '-', which ssh would take for an option/, NO_SSH],
  ['nbd+ssh://-v/', /host is not safe/, NO_SSH],
  ['nbd+ssh://%2Dlroot/', /host is not safe/, NO_SSH],
  ['nbd+ssh://%2DoProxyCommand=x/', /host is not safe/, NO_SSH],
  ['nbd+ssh://$(id)/', /host is not safe/, NO_SSH],
  ['nbd+ssh://h%60id%60/', /host is not safe/, NO_SSH],
  ['nbd+ssh://h;id/', /host is not safe/, NO_SSH],
  ['nbd+ssh://-l@h/', /user name is not safe/, NO_SSH],
  ['nbd+ssh://$USER@h/', /user name is not safe/, NO_SSH],
  ['nbd+ssh://%25u@h/', /user name is not safe/, NO_SSH],
  ['nbd+ssh://u%20v@h/', /user name is not safe/, NO_SSH],
  ['nbd+ssh://h/?socket=-e', /socket is not safe/, NO_SSH],
  ['nbd+ssh://h/?socket=/s%3Bid', /socket is not safe.*shell/, NO_SSH],
  ['nbd+ssh://h/?socket=$(id)', /socket is not safe/, NO_SSH],
  ['nbd+ssh://h/?socket=/a%20b', /socket is not safe/, NO_SSH],
  ["nbd+ssh://h/?socket=/a'b", /socket is not safe/, NO_SSH],
  ['nbd+ssh://h/?socket=~/s', /socket is not safe/, NO_SSH],
  ['nbd+ssh://h/?socket=/a*', /socket is not safe/, NO_SSH],
  ['nbd+ssh://h/?socket=/a%0Ab', /socket is not safe/, NO_SSH],
  ['nbd+ssh://h/?socket=%00a', /socket is not safe/, NO_SSH],
  ['nbd+ssh://h/?socket=', /socket is empty/, NO_SSH],
  ['nbd+ssh://h/?nbd-port=$(id)', /nbd-port is not a number/, NO_SSH],
  ['nbd+ssh://h/?compress=maybe', /compress is neither true nor false/, NO_SSH],
  ['nbd+ssh://h:70000/', /port is not a number/, NO_SSH],
];
