// Metadata contexts.

import { close, D, E, join, L, OK, on, OPT, R, REP, repeat, u32, type WireCase } from '../notation.js';
import { same } from './steps.js';

const SETMETA = OPT.SETMETA;
const LISTMETA = OPT.LISTMETA;
const set = (...replies: Uint8Array[]): WireCase['script'] => ({ on: [on(SETMETA, replies)] });
const meta = (id: number, name: string): Buffer => REP(SETMETA, R.META, join(u32(id), name));
const META_ACK = REP(SETMETA, R.ACK);
const asked = { client: { metaContexts: ['base:allocation'] } } as const;
const notThere = { ...asked, user: 'bs 65536 0, R', expected: [L('ENOTSUP')] } as const;

export const CONTEXTS: readonly WireCase[] = [
  {
    id: 'M01',
    what: 'nothing selected',
    script: set(META_ACK),
    ...notThere,
    user: 'canmeta, bs 65536 0, R',
    check: ([, can]) => same(can?.value, false),
  },
  { id: 'M02', what: 'ERR_UNSUP', script: set(REP(SETMETA, R.UNSUP)), ...notThere },
  { id: 'M02b', what: 'ERR_INVALID', script: set(REP(SETMETA, R.INVALID, 'no')), ...notThere },
  {
    id: 'M03',
    what: 'a context that was not requested',
    script: set(meta(1, 'x-a:b'), META_ACK),
    ...asked,
    expected: [D, OK],
  },
  {
    id: 'M04',
    what: 'two contexts with one ID',
    script: set(meta(1, 'base:allocation'), meta(1, 'x-a:b'), META_ACK),
    client: { metaContexts: ['base:allocation', 'x-a:b'] },
    user: 'bs 65536 0, R',
    expected: [D, E],
  },
  {
    id: 'M05',
    what: 'one context with two IDs',
    script: set(meta(1, 'base:allocation'), meta(2, 'base:allocation'), META_ACK),
    ...asked,
    expected: [D, OK],
  },
  {
    id: 'M06',
    what: 'META_CONTEXT of length 2',
    script: set(REP(SETMETA, R.META, 'ab'), META_ACK),
    ...asked,
    expected: [D],
  },
  {
    id: 'M06b',
    what: 'META_CONTEXT without a name',
    script: set(REP(SETMETA, R.META, u32(1)), META_ACK),
    ...asked,
    expected: [D, OK],
  },
  {
    id: 'M07',
    what: 'context name of 4097 bytes',
    script: set(meta(1, `base:${'x'.repeat(4092)}`), META_ACK),
    ...asked,
    expected: [D],
  },
  {
    id: 'M08',
    what: 'META_CONTEXT that declares 64 MiB + 1',
    script: { on: [on(SETMETA, [REP(SETMETA, R.META, '', { length: (64 << 20) + 1 }), { do: 'stall' }])] },
    ...asked,
    expected: [D],
  },
  {
    id: 'M09',
    what: 'endless contexts',
    script: { on: [on(SETMETA, repeat(1e7, meta(1, 'base:allocation')))] },
    ...asked,
    expected: [E],
    timeout: 3000,
    memory: 64,
  },
  {
    id: 'M10',
    what: 'ACK with data',
    script: set(meta(1, 'base:allocation'), REP(SETMETA, R.ACK, 'abcd')),
    ...asked,
    expected: [D],
  },
  {
    id: 'M11',
    what: 'LIST_META with the same ID twice and a wildcard',
    script: {
      on: [
        on(LISTMETA, [
          REP(LISTMETA, R.META, join(u32(77), 'base:')),
          REP(LISTMETA, R.META, join(u32(77), 'qemu:')),
          REP(LISTMETA, R.ACK),
        ]),
      ],
    },
    client: { optMode: true },
    user: 'lmeta, go, R',
    expected: [OK],
    check: ([, list]) => same(list?.value, ['base:', 'qemu:']),
  },
  {
    id: 'M12',
    what: 'LIST_META entry, then an error',
    script: { on: [on(LISTMETA, [REP(LISTMETA, R.META, join(u32(0), 'base:allocation')), REP(LISTMETA, R.POLICY)])] },
    client: { optMode: true },
    user: 'lmeta, go, R',
    expected: [E],
  },
  {
    id: 'M14',
    what: 'opt mode: GO requests the contexts',
    script: {},
    client: { optMode: true, metaContexts: ['base:allocation'] },
    user: 'go, canmeta, bs 65536 0, R',
    expected: [OK],
    check: (ops) => same(ops[2]?.value, true),
  },
  {
    id: 'M15',
    what: 'opt mode: INFO requests the contexts',
    script: {},
    client: { optMode: true, metaContexts: ['base:allocation'] },
    user: 'info, canmeta, go, R',
    expected: [OK],
    check: (ops) => same(ops[2]?.value, true),
  },
  {
    id: 'M13',
    what: 'FIN between contexts and ACK',
    script: { on: [on(SETMETA, [meta(1, 'base:allocation'), close()])] },
    ...asked,
    expected: [D],
  },
];
