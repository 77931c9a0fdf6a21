// Where a server can lie to an option: each option that a client sends, how it is brought to send it, and what a
// refusal of it costs.

import { TLS_ALLOW, TLS_REQUIRE } from '../../../../lib/index.js';
import { D_ABORT, E, E_ABORT, join, OK, OPT, type Outcome, R, REP, u32, type WireCase, XINFO } from '../../notation.js';

export interface Site {
  readonly name: string;
  readonly option: number;
  /** The type of the replies that come before the ACK. */
  readonly entry?: number;
  /** A good answer, one piece for each reply; undefined where it would need more than bytes. */
  readonly good?: readonly Uint8Array[];
  readonly row: Pick<WireCase, 'client' | 'user'>;
  /** What an error reply gives, and what the one gives that announces the server's end. */
  readonly refused: Outcome;
  readonly goodbye: Outcome;
  /** The code of every refusal, where it is one. */
  readonly code?: string;
}

const CONNECTING = { refused: OK, goodbye: D_ABORT } as const;
const CALLED = { refused: E, goodbye: E_ABORT } as const;
const optMode = (user: string): Site['row'] => ({ client: { optMode: true }, user });
const info = (option: number): Uint8Array[] => [REP(option, R.INFO, XINFO()), REP(option, R.ACK)];
const meta = (option: number): Uint8Array[] => [
  REP(option, R.META, join(u32(1), 'base:allocation')),
  REP(option, R.ACK),
];

const { EXT, GO, INFO, LIST, LISTMETA, SETMETA, SR, STARTTLS } = OPT;

export const SITES: readonly Site[] = [
  { name: 'SR', option: SR, good: [REP(SR, R.ACK)], row: {}, ...CONNECTING },
  { name: 'EXT', option: EXT, good: [REP(EXT, R.ACK)], row: {}, ...CONNECTING },
  {
    name: 'SETMETA',
    option: SETMETA,
    entry: R.META,
    good: meta(SETMETA),
    row: { client: { metaContexts: ['base:allocation'] } },
    ...CONNECTING,
  },
  { name: 'GO', option: GO, entry: R.INFO, good: info(GO), row: {}, refused: D_ABORT, goodbye: D_ABORT },
  { name: 'INFO', option: INFO, entry: R.INFO, good: info(INFO), row: optMode('info, go, R'), ...CALLED },
  {
    name: 'LIST',
    option: LIST,
    entry: R.SERVER,
    good: [REP(LIST, R.SERVER, join(u32(1), 'a')), REP(LIST, R.ACK)],
    row: optMode('list, go, R'),
    ...CALLED,
  },
  {
    name: 'LISTMETA',
    option: LISTMETA,
    entry: R.META,
    good: meta(LISTMETA),
    row: optMode('lmeta, go, R'),
    ...CALLED,
  },
  { name: 'STARTTLS', option: STARTTLS, row: { client: { tls: TLS_ALLOW } }, ...CONNECTING },
  {
    name: 'STARTTLS!',
    option: STARTTLS,
    row: { client: { tls: TLS_REQUIRE } },
    refused: D_ABORT,
    goodbye: D_ABORT,
    code: 'ENOTSUP',
  },
];
