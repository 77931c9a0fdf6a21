// The table's rows through libnbd. Its parser cannot be called alone: the test connects, to places where hardly
// anything listens, and EINVAL before that is its refusal. LIBNBD_PYTHON may name another Python, with arguments.

import { spawnSync } from 'node:child_process';

import { describe, expect, it } from '@jest/globals';

import * as client from '../../lib/protocol/client-constants.js';
import { formatUri } from '../../lib/protocol/uri-format.js';
import { isUri, parseUri } from '../../lib/protocol/uri.js';
import { ACCEPTED, NO_DNS, NO_SSH, REFUSED } from './uri-cases.js';
import type { Libnbd } from './uri-cases.js';

interface Verdict {
  readonly uri: string;
  readonly refused: boolean;
  readonly message: string;
  readonly exportName: string | null;
  readonly tls: number;
  readonly tlsUsername: string | null;
  readonly getUri: string | null;
  readonly isUri: boolean | null;
}

const SCRIPT = `
import json, nbd, os, socket, sys, tempfile
folder = tempfile.mkdtemp()
tcp = socket.create_server(("127.0.0.1", 0), backlog=100)
unix = socket.socket(socket.AF_UNIX)
unix.bind(folder + "/s")
unix.listen(100)

def judge(uri):
    uri = uri.replace("{PORT}", str(tcp.getsockname()[1])).replace("{SOCKET}", folder + "/s")
    h = nbd.NBD()
    h.set_uri_allow_local_file(True)
    if hasattr(h, "set_uri_allow_tls_priority"):
        h.set_uri_allow_tls_priority(True)
    verdict = {"uri": uri, "refused": False, "message": "", "getUri": None, "isUri": None}
    if hasattr(h, "is_uri"):
        verdict["isUri"] = h.is_uri(uri)
    try:
        h.aio_connect_uri(uri)
        verdict["getUri"] = h.get_uri()
    except nbd.Error as error:
        verdict["refused"] = error.errno == "EINVAL"
        verdict["message"] = str(error)
    for key, getter in ("exportName", h.get_export_name), ("tls", h.get_tls), ("tlsUsername", h.get_tls_username):
        try:
            verdict[key] = getter()
        except Exception:
            verdict[key] = None
    return verdict

verdicts = [judge(uri) for uri in json.load(sys.stdin)]
unix.close()
os.unlink(folder + "/s")
os.rmdir(folder)
print(json.dumps({"version": nbd.NBD().get_version(), "verdicts": verdicts}))
`;

const [PYTHON = '', ...PYTHON_ARGUMENTS] = (process.env.LIBNBD_PYTHON ?? '/usr/bin/python3').split(' ');

function python(script: string, input: string): { status: number | null; stdout: string; stderr: string } {
  return spawnSync(PYTHON, [...PYTHON_ARGUMENTS, '-c', script], { input, encoding: 'utf8', timeout: 15_000 });
}

function askLibnbd(uris: readonly string[]): { minor: number; verdicts: Verdict[] } {
  const { status, stdout, stderr } = python(SCRIPT, JSON.stringify(uris));
  if (status !== 0) throw new Error(`python3-libnbd: ${stderr}`);
  const { version, verdicts } = JSON.parse(stdout) as { version: string; verdicts: Verdict[] };
  return { minor: Number(version.split('.')[1]), verdicts };
}

const hasLibnbd = python('import nbd', '').status === 0;
const itWithLibnbd = hasLibnbd || process.env.CI === 'true' ? it : it.skip;

describe(`libnbd${hasLibnbd ? '' : ' (python3-libnbd is not installed)'}`, () => {
  const isComparable = (libnbd: Libnbd): boolean => libnbd !== NO_SSH && libnbd !== NO_DNS;
  const mustAgree = (libnbd: Libnbd, minor: number): boolean => typeof libnbd !== 'string' && (libnbd ?? 0) <= minor;

  itWithLibnbd('reads what we read', () => {
    const rows = ACCEPTED.filter(([, , libnbd]) => isComparable(libnbd));
    const { minor, verdicts } = askLibnbd(rows.map(([uri]) => uri));
    for (const [index, [uri, , libnbd]] of rows.entries()) {
      if (!mustAgree(libnbd, minor)) continue;
      const { tls, exportName, tlsUsername } = parseUri(uri);
      expect(verdicts[index]).toMatchObject({
        uri,
        refused: false,
        exportName,
        tls: tls ? client.TLS_REQUIRE : client.TLS_DISABLE,
        ...(tlsUsername === undefined ? {} : { tlsUsername }),
      });
    }
  });

  itWithLibnbd('refuses what we refuse, except for the rows that give a reason', () => {
    const rows = REFUSED.filter(([, , libnbd]) => isComparable(libnbd));
    const { minor, verdicts } = askLibnbd(rows.map(([uri]) => uri));
    for (const [index, [uri, , libnbd]] of rows.entries()) {
      const refused = typeof libnbd !== 'string'; // where libnbd has come round, the row's reason is out of date
      if (refused && !mustAgree(libnbd, minor)) continue;
      expect(verdicts[index]).toMatchObject({ uri, refused });
    }
  });

  itWithLibnbd('writes what we write', () => {
    const { verdicts } = askLibnbd([
      'nbd://127.0.0.1:{PORT}',
      "nbd://127.0.0.1:{PORT}//a%20b/%C3%A9%25%3F%23:;@&=+$,!'()*~%5B%22",
      'nbd://al%69ce%40%2F;=+@127.0.0.1:{PORT}/x',
      'nbds://localhost:{PORT}/x',
      'nbd+unix:///x?socket={SOCKET}',
      'nbds+unix://u@/?tls-psk-file=/p&tls-certificates=/c&socket={SOCKET}',
    ]);
    for (const { uri, getUri } of verdicts) expect(formatUri(parseUri(uri))).toBe(getUri);
  });

  itWithLibnbd('knows a URI as we do', () => {
    const uris = [
      'nbd://',
      'NBD://x',
      'nbd:',
      'nbd:/',
      '',
      ' nbd://',
      'nbds+unix://',
      'nbds+vsock://%zz',
      'nbd+tcp://x',
    ];
    for (const verdict of askLibnbd(uris).verdicts) {
      // The function is new in libnbd 1.22.
      if (verdict.isUri !== null) expect(isUri(verdict.uri)).toBe(verdict.isUri);
    }
  });
});
