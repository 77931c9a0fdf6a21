// The aioIs* functions, the count in flight, and what is refused at each moment, by libnbd and by this package side by
// side on the same server: nbdkit, whose reads take a while.

import { expect, it } from '@jest/globals';

import { NbdConnection, type NbdError } from '../../lib/index.js';
import { describeWith, runLibnbd, startNbdkit } from '../support/real-servers.js';
import { until } from '../support/waiting.js';

const BASE = 'base:allocation';

/** One moment: how each side gets there, from the moment before. */
type Moment = readonly [name: string, python: string, ours: (c: NbdConnection, path: string) => unknown];

const MOMENTS: readonly Moment[] = [
  ['created', 'pass', () => undefined],
  ['connecting', 'h.aio_connect_unix(path)', (c, path) => c.aioConnectUnix(path)],
  ['negotiating', 'while h.aio_is_connecting(): h.poll(-1)', (c) => until(() => !c.aioIsConnecting())],
  ['an option pending', 'h.aio_opt_info()', (c) => c.aioOptInfo()],
  ['informed', 'while h.aio_is_connecting(): h.poll(-1)', (c) => until(() => !c.aioIsConnecting())],
  [
    'ready',
    'h.aio_opt_go()\nwhile h.aio_is_connecting() or h.aio_is_negotiating(): h.poll(-1)',
    (c) => {
      c.aioOptGo();
      return until(() => !c.aioIsConnecting() && !c.aioIsNegotiating());
    },
  ],
  ['a read in flight', 'h.aio_pread(b, 0)', (c) => void c.aioPread(Buffer.alloc(512), 0)],
  ['three', 'h.aio_pread(b, 0); h.aio_pread(b, 0)', (c) => [0, 1].map(() => c.aioPread(Buffer.alloc(512), 0))],
  ['idle', 'while h.aio_in_flight() > 0: h.poll(-1)', (c) => until(() => c.aioInFlight() === 0)],
  [
    'a long write on its way',
    'w = nbd.Buffer.from_bytearray(bytearray(32 * 2**20)); h.aio_pwrite(w, 0)',
    async (c) => {
      c.aioPwrite(Buffer.alloc(32 * 2 ** 20), 0);
      await new Promise(process.nextTick);
    },
  ],
  ['idle again', 'while h.aio_in_flight() > 0: h.poll(-1)', (c) => until(() => c.aioInFlight() === 0)],
  [
    'a disconnect behind a read',
    'h.aio_pread(b, 0); h.aio_disconnect()',
    (c) => {
      c.aioPread(Buffer.alloc(512), 0);
      c.aioDisconnect();
    },
  ],
  ['closed', 'while not h.aio_is_closed(): h.poll(-1)', (c) => until(() => c.aioIsClosed())],
];

/** The calls that each side makes at every moment: a result, or the code of the error. */
const QUESTIONS: readonly (readonly [python: string, ours: (c: NbdConnection) => unknown])[] = [
  ['h.aio_is_created()', (c) => c.aioIsCreated()],
  ['h.aio_is_connecting()', (c) => c.aioIsConnecting()],
  ['h.aio_is_negotiating()', (c) => c.aioIsNegotiating()],
  ['h.aio_is_ready()', (c) => c.aioIsReady()],
  ['h.aio_is_processing()', (c) => c.aioIsProcessing()],
  ['h.aio_is_closed()', (c) => c.aioIsClosed()],
  ['h.aio_is_dead()', (c) => c.aioIsDead()],
  ['h.aio_in_flight()', (c) => c.aioInFlight()],
  ['h.get_protocol()', (c) => c.getProtocol()],
  ['h.get_size()', (c) => Number(c.getSize())],
  ['h.set_full_info(False)', (c) => c.setFullInfo(false)],
  ['h.set_export_name("")', (c) => c.setExportName('')],
  ['h.get_nr_meta_contexts()', (c) => c.getNrMetaContexts()],
  ['h.set_strict_mode(h.get_strict_mode())', (c) => c.setStrictMode(c.getStrictMode())],
];

const SCRIPT = `
import json, sys
work = json.load(sys.stdin)
path = work["path"]
h = nbd.NBD()
h.set_opt_mode(True)
h.add_meta_context("${BASE}")
b = nbd.Buffer(512)
for name, step in work["moments"]:
  exec(step)
  for question in work["questions"]:
    try:
      answer = eval(question)
    except nbd.Error as e:
      answer = e.errno
    print(name, "|", question, "|", json.dumps(answer))
`;

describeWith(['nbdkit', 'python3-libnbd'], 'the states of a connection are those of libnbd', () => {
  it('at every moment', async () => {
    await using server = await startNbdkit({ args: ['64M', 'rdelay=200ms', 'delay-open=300ms'], filters: ['delay'] });
    const path = server.socketPath ?? '';
    const { code, stdout, stderr } = await runLibnbd(SCRIPT, {
      input: JSON.stringify({
        path,
        moments: MOMENTS.map((each) => each.slice(0, 2)),
        questions: QUESTIONS.map(([python]) => python),
      }),
    });
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });

    const lines: string[] = [];
    const c = new NbdConnection({ optMode: true, metaContexts: [BASE] });
    for (const [name, , reach] of MOMENTS) {
      await reach(c, path);
      for (const [python, ours] of QUESTIONS) {
        let answer: unknown;
        try {
          answer = ours(c) ?? null;
        } catch (error) {
          answer = (error as NbdError).code;
        }
        lines.push(`${name} | ${python} | ${JSON.stringify(answer)}`);
      }
    }
    expect(lines).toEqual(stdout.trim().split('\n'));
  });
});

/** canMetaContext after connecting, or after the step in option mode: a boolean, or the code of the error. */
const CONTEXTS: readonly (readonly [name: string, server: readonly string[], python: string, options: object])[] = [
  ['requested', [], '', { metaContexts: [BASE] }],
  ['requested twice', [], '', { metaContexts: [BASE, BASE] }],
  ['not requested', [], '', {}],
  ['without structured replies', ['--no-sr'], '', { metaContexts: [BASE] }],
  ['oldstyle', ['-o'], '', { metaContexts: [BASE] }],
  ['the plain handshake', [], 'h.set_handshake_flags(0)', { metaContexts: [BASE], handshakeFlags: 0 }],
  ['in option mode, before any option', [], 'h.set_opt_mode(True)', { metaContexts: [BASE], optMode: true }],
  // Not requested, and not informed: false since libnbd 1.16, EINVAL before.
];

describeWith(['nbdkit', 'python3-libnbd'], 'canMetaContext is that of libnbd', () => {
  it.each(CONTEXTS)('%s', async (_name, args, python, options) => {
    await using server = await startNbdkit({ options: args });
    const path = server.socketPath ?? '';
    const { metaContexts = [] } = options as { metaContexts?: string[] };
    const { stdout, stderr } = await runLibnbd(`
h = nbd.NBD()
${python}
${metaContexts.map((name) => `h.add_meta_context("${name}")`).join('\n')}
h.connect_unix(${JSON.stringify(path)})
try: print(h.can_meta_context("${BASE}"), h.get_nr_meta_contexts())
except nbd.Error as e: print(e.errno, h.get_nr_meta_contexts())
`);
    expect(stderr).toBe('');
    const c = new NbdConnection(options);
    await c.connectUnix(path);
    let can: string;
    try {
      can = c.canMetaContext(BASE) ? 'True' : 'False';
    } catch (error) {
      can = (error as NbdError).code;
    }
    expect(`${can} ${c.getNrMetaContexts()}`).toBe(stdout.trim());
    await c.shutdown();
  });
});
