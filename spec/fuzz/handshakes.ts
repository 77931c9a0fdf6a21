// The family of the client's handshake: what servers send before an export is open, against the reference.

import { NbdConnectionError, NbdOptionError, NbdProtocolError } from '../../lib/errors.js';
import { type Handshake, START_TLS } from '../../lib/protocol/handshake/effects.js';
import { negotiate, open, requestContexts } from '../../lib/protocol/handshake/negotiate.js';
import { infoOrGo } from '../../lib/protocol/handshake/opt-info.js';
import { list } from '../../lib/protocol/handshake/opt-list.js';
import { listMetaContext } from '../../lib/protocol/handshake/opt-meta-context.js';
import { HandshakeSession } from '../../lib/protocol/handshake/session.js';
import { NBD_OPT_INFO } from '../../lib/protocol/constants.js';
import * as g from '../support/golden.js';
import { type Example, type Family } from './family.js';
import { expectHandshake, type HandshakeResult, type Wishes } from './handshake-reference.js';
import { takeCount } from './memory.js';
import { type MessageShape } from './mutate.js';
import { same } from './reply-run.js';
import { transcripts } from './transcripts.js';

interface HandshakeExample extends Example {
  readonly wishes: Wishes;
}

/** The longest string, the skipping of unknown information in pieces, and a few times the input. */
const MEMORY_LIMIT = 65536;

const OPTION_REPLY: MessageShape = {
  magic: Buffer.from('0003e889045565a9', 'hex'),
  fields: [
    { at: 8, width: 4 },
    { at: 12, width: 4 },
    { at: 16, width: 4 },
    { at: 20, width: 2 },
    { at: 20, width: 4 },
    { at: 22, width: 4 },
    { at: 22, width: 8 },
    { at: 30, width: 2 },
  ],
};
const GREETING: MessageShape = {
  magic: Buffer.from('NBDMAGIC'),
  fields: [
    { at: 8, width: 8 },
    { at: 16, width: 2 },
    { at: 24, width: 4 },
  ],
};

const PLAIN: Wishes = {
  ...{ exportName: '', structuredReplies: true, extendedHeaders: true, metaContexts: [], fullInfo: false },
  ...{ tls: false, first: 'go' },
};
const unsup = (option: number): Buffer => g.reply(option, g.ERR_UNSUP);
const served = (option: number): Buffer =>
  g.cat(g.reply(option, g.INFO, g.infoExport(1 << 20, g.ALL_FLAGS)), g.reply(option, g.ACK));

/** What the recorded ones do not have. */
const MADE: readonly (readonly [origin: string, wishes: Wishes, ...parts: Buffer[]])[] = [
  [
    'a list',
    { ...PLAIN, first: 'list' },
    g.cat(g.greeting(), unsup(11), g.reply(8, g.ACK)),
    ...['', 'disk', 'ünï'].map((name) =>
      g.reply(3, g.SERVER, g.cat(g.u32(Buffer.byteLength(name)), name, `about ${name}`)),
    ),
    g.cat(g.reply(3, g.ACK), served(7)),
  ],
  [
    'INFO and all of its kinds',
    { ...PLAIN, first: 'info', fullInfo: true, metaContexts: ['base:allocation', 'x:y'] },
    g.cat(g.greeting(), g.reply(11, g.ACK)),
    ...[6, 7].flatMap((option) => [
      ...(option === 7
        ? [
            g.reply(10, g.META, g.metaContext(1, 'base:allocation')),
            g.reply(10, g.META, g.metaContext(9, 'x:y')),
            g.reply(10, g.ACK),
          ]
        : []),
      g.reply(option, g.INFO, g.infoName('disk')),
      g.reply(option, g.INFO, g.infoBlockSize(512, 4096, 1 << 25)),
      g.reply(option, g.INFO, g.cat(g.u16(0x1234), 'unknown')),
      g.reply(option, g.INFO, g.infoDescription('a disk')),
      served(option),
    ]),
  ],
  [
    'contexts',
    { ...PLAIN, first: 'list-meta' },
    g.cat(g.greeting(), unsup(11), g.reply(8, g.ACK)),
    ...['base:allocation', 'qemu:dirty-bitmap:b0'].map((name) => g.reply(9, g.META, g.metaContext(0, name))),
    g.cat(g.reply(9, g.ACK), served(7)),
  ],
  ['a refusal', PLAIN, g.cat(g.greeting(), g.reply(11, g.ACK), g.reply(7, g.ERR_UNKNOWN, 'no such export'))],
  [
    'TLS refused',
    { ...PLAIN, tls: true },
    g.cat(g.greeting(), g.reply(5, g.ERR_POLICY), g.reply(11, g.ACK), served(7)),
  ],
  ['TLS', { ...PLAIN, tls: true }, g.cat(g.greeting(), g.reply(5, g.ACK))],
  ['no GO', PLAIN, g.cat(g.greeting(), unsup(11), unsup(8), unsup(7), g.u64(1 << 20), g.u16(g.ALL_FLAGS))],
  ['oldstyle', PLAIN, g.oldstyle(1 << 20, g.ALL_FLAGS)],
  ['oldstyle for a named export', { ...PLAIN, exportName: 'disk' }, g.oldstyle(1 << 20, g.ALL_FLAGS)],
];

export const handshakeFamily: Family<HandshakeExample> = {
  name: 'handshake',
  shapes: [OPTION_REPLY, GREETING],
  examples: () => [
    ...transcripts().map((each) => ({
      origin: `the transcript ${each.name}`,
      wishes: { ...PLAIN, ...each.request },
      bytes: Buffer.concat(each.handshake),
    })),
    ...MADE.map(([origin, wishes, ...parts]) => ({ origin, wishes, bytes: Buffer.concat(parts) })),
  ],
  check: ({ wishes }, bytes) => {
    takeCount();
    const seen = run(wishes, bytes);
    const taken = takeCount();
    const expected = expectHandshake(wishes, bytes);
    const isWhole = expected.ending !== 'cut short' && expected.ending !== 'violation';
    same('ending', seen.ending, expected.ending);
    // A broken rule is found wherever the piece ends in which it is.
    if (isWhole) same('bytes consumed', seen.consumed, expected.consumed);
    for (const key of expected.ending === 'transmission' ? SHOWN : []) same(key, seen[key], expected[key]);
    same('options', seen.options.join(), expected.options.join());
    if (taken > MEMORY_LIMIT + 8 * bytes.length) throw new Error(`buffers of ${taken} bytes for ${bytes.length}`);
    return expected.ending;
  },
};

const SHOWN = [
  ...(['protocol', 'size', 'flags', 'blockSizes', 'name', 'description'] as const),
  ...(['structured', 'extended', 'contexts', 'listed'] as const),
] as const;

/** Option mode's question, if there is one, and the way into the export. */
function* conversation(session: HandshakeSession, { first }: Wishes, told: (listed: string) => void): Handshake<void> {
  if ((yield* negotiate(session)) === 'transmission') return;
  if (session.isFixedNewstyle) {
    if (first === 'info') {
      const refusal = yield* infoOrGo(session, NBD_OPT_INFO);
      told(refusal === null ? '[]' : refusal.code);
    } else if (first === 'list') {
      const exports = yield* list(session);
      told(
        'code' in exports ? exports.code : JSON.stringify(exports.map((each) => `${each.name}: ${each.description}`)),
      );
    } else {
      const contexts = yield* listMetaContext(session, []);
      told('code' in contexts ? contexts.code : JSON.stringify(contexts));
    }
  }
  yield* requestContexts(session);
  const refusal = yield* open(session);
  if (refusal !== null) throw refusal;
}

/** Passes the coroutine exactly what it requests. */
function run(wishes: Wishes, bytes: Buffer): HandshakeResult {
  const { exportName, structuredReplies, extendedHeaders, metaContexts, fullInfo, tls, first } = wishes;
  const session = new HandshakeSession({
    ...{ exportName, structuredReplies, extendedHeaders, metaContexts, fullInfo },
    ...{ tls: tls ? 1 : 0, maskExportName: false, handshakeFlags: 3, blockSize: true, metaContext: true },
    optMode: first !== 'go',
  });
  const result: HandshakeResult = { ending: 'transmission', options: [], consumed: 0 };
  const handshake = conversation(session, wishes, (listed) => (result.listed = listed));
  try {
    for (let input = Buffer.alloc(0); ;) {
      const { done, value } = handshake.next(input);
      if (done === true) break;
      input = Buffer.alloc(0);
      if (value === START_TLS) return { ...result, ending: 'tls' };
      if (typeof value === 'function') throw new Error('a client that waits');
      if (typeof value !== 'number') {
        // The first thing that is written are the client flags.
        if (value.length >= 16) result.options.push(Buffer.from(value).readUInt32BE(8));
        continue;
      }
      if (value > 65536) throw new Error(`a read of ${value} bytes at once`);
      if (result.consumed + value > bytes.length) return { ...result, ending: 'cut short' };
      input = Buffer.from(bytes.subarray(result.consumed, result.consumed + value));
      result.consumed += value;
    }
  } catch (error) {
    return { ...result, ending: endingOf(error) };
  }
  return { ...result, ...knownBy(session) };
}

function endingOf(error: unknown): string {
  if (error instanceof NbdProtocolError) return 'violation';
  if (error instanceof NbdOptionError || error instanceof NbdConnectionError) return `${error.name} ${error.code}`;
  throw error;
}

function knownBy({ info, negotiated, protocol }: HandshakeSession): Partial<HandshakeResult> {
  if (info === null) throw new Error('an open export of which nothing is known');
  const { blockSizes: sizes, canonicalName, description } = info;
  return {
    ...(protocol === null ? {} : { protocol }),
    size: BigInt(info.size),
    flags: info.flags,
    blockSizes: sizes === null ? '' : `${sizes.minimum} ${sizes.preferred} ${sizes.maximum}`,
    name: canonicalName,
    description,
    structured: negotiated.structuredReplies,
    extended: negotiated.extendedHeaders,
    contexts:
      negotiated.contexts === null || negotiated.contexts.size === 0
        ? 'none'
        : JSON.stringify([...negotiated.contexts]),
  };
}
