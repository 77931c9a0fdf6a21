// Names of a server's making in messages of ours: nothing in them may reach a terminal as it is.

import { D, DONE, F, join, on, OPT, type Outcome, R, REP, SR, T, u32, type WireCase } from '../../notation.js';
import type { Answer, Request } from './styles.js';

/** An escape sequence, a new line, a text that turns round, a separator of lines. */
const EVIL = 'x-a:\x1b[2J\r\n\u202egnp\u2028';
const ASKED = ['base:allocation'];
const extent = (id: number, length: number): Buffer => join(u32(id), u32(length), u32(0));

const selects = (names: readonly (readonly [id: number, name: string])[]): WireCase['script'] => ({
  on: [
    on(OPT.SETMETA, [
      ...names.map(([id, name]) => REP(OPT.SETMETA, R.META, join(u32(id), name))),
      REP(OPT.SETMETA, R.ACK),
    ]),
  ],
});

const isClean: WireCase['check'] = (results) => {
  const { message } = results.find(({ status }) => status === 'rejected')?.error as Error;
  // eslint-disable-next-line no-control-regex -- control characters are what must not be there
  if (/[\0-\x1f\x7f\u2028-\u202e]/.test(message)) throw new Error(JSON.stringify(message));
};

const status = (id: string, what: string, steps: (r: Request) => Answer, expected: Outcome): WireCase => ({
  id,
  what,
  script: { ...selects([[1, EVIL]]), reply: { command: 7, steps } },
  client: { metaContexts: ASKED },
  user: 'bs 65536 0, pread 512 4096',
  expected: [expected],
  check: isClean,
});

export const HOSTILE_NAMES: readonly WireCase[] = [
  status('K29.missing', 'no report on a hostile name', (r) => SR(DONE, T.NONE, r.cookie), F('EPROTO')),
  status('K29.zero', 'a bad report on it', (r) => SR(DONE, T.BS, r.cookie, extent(1, 0)), F('EPROTO')),
  status(
    'K29.twice',
    'two reports on it',
    (r) => [SR(0, T.BS, r.cookie, extent(1, 65536)), SR(DONE, T.BS, r.cookie, extent(1, 65536))],
    F('EPROTO'),
  ),
  {
    id: 'M04.names',
    what: 'two hostile names with one ID',
    script: selects([
      [1, EVIL],
      [1, `${EVIL}b`],
    ]),
    client: { metaContexts: ASKED },
    expected: [D],
    check: isClean,
  },
];
