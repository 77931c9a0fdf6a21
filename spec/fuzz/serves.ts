// The family of the server's handshake: what clients send before an export is open, against the reference. Every reply
// is taken apart, so that no malformed reply is missed.

import { NbdProtocolError } from '../../lib/errors.js';
import { START_TLS } from '../../lib/protocol/handshake/effects.js';
import { serve } from '../../lib/protocol/handshake/serve.js';
import { type ExportOffer, type ServerOffer } from '../../lib/protocol/handshake/serve-offer.js';
import { DEFAULT_FEATURES } from '../../lib/server/options.js';
import * as g from '../support/golden.js';
import { type Example, type Family } from './family.js';
import { takeCount } from './memory.js';
import { type MessageShape } from './mutate.js';
import { same } from './reply-run.js';
import { expectServe, type Served, type ServedName, type ServeResult } from './serve-reference.js';
import { transcripts } from './transcripts.js';

interface ServeExample extends Example {
  readonly served: Served;
}

const OPTION: MessageShape = {
  magic: Buffer.from('IHAVEOPT'),
  fields: [
    { at: 8, width: 4 },
    { at: 12, width: 4 },
    { at: 16, width: 4 },
    { at: 20, width: 2 },
    { at: 20, width: 4 },
    { at: 24, width: 4 },
    { at: 28, width: 4 },
  ],
};

/** Data of one option that is held, twice while its pieces are joined; and a few times the input. */
const MEMORY_LIMIT = 3 * 65536;

const CONTEXTS = ['base:allocation', 'qemu:dirty-bitmap:b0'];
const EXPORTS: readonly ServedName[] = [
  { name: '', description: '', requireBlockSize: false, contexts: CONTEXTS },
  { name: 'disk', description: 'a disk', requireBlockSize: false, contexts: CONTEXTS.slice(0, 1) },
  { name: 'export', description: 'needs block sizes', requireBlockSize: true, contexts: [] },
];
const SERVED: readonly Served[] = [
  { fixed: true, noZeroes: true, maxOptions: 12, exports: EXPORTS },
  { fixed: true, noZeroes: false, maxOptions: 5, exports: EXPORTS },
  { fixed: false, noZeroes: true, maxOptions: 12, exports: EXPORTS },
];

const text = (value: string): Buffer => g.cat(g.u32(Buffer.byteLength(value)), value);
const info = (option: number, name: string, ...wanted: number[]): Buffer =>
  g.option(option, g.cat(text(name), g.u16(wanted.length), ...wanted.map(g.u16)));
const meta = (option: number, name: string, ...queries: string[]): Buffer =>
  g.option(option, g.cat(text(name), g.u32(queries.length), ...queries.map(text)));

const MADE: readonly (readonly [origin: string, ...parts: Buffer[]])[] = [
  ['a list', g.u32(3), g.option(3), info(6, 'disk', 3, 1, 2), info(7, 'disk', 3)],
  ['contexts', g.u32(3), g.option(8), meta(9, '', 'base:'), meta(10, '', ...CONTEXTS), info(7, '', 3)],
  ['extended headers', g.u32(3), g.option(11), meta(10, 'disk', 'base:allocation', 'x:y'), info(7, 'disk', 3)],
  ['contexts requested twice', g.u32(1), g.option(8), meta(10, '', CONTEXTS[1] ?? ''), meta(10, 'disk'), info(7, '')],
  [
    'contexts and too much of them',
    g.u32(3),
    g.option(11),
    meta(10, '', CONTEXTS[0] ?? ''),
    g.option(10, Buffer.alloc(65537)),
    info(7, ''),
  ],
  ['refusals', g.u32(3), g.option(5), g.option(99, 'what?'), g.option(3, 'data'), info(7, 'unknown'), g.option(2)],
  ['block sizes needed', g.u32(3), info(7, 'export'), info(7, 'export', 3)],
  ['EXPORT_NAME', g.u32(3), g.option(8), g.option(1, 'disk')],
];

export const serveFamily: Family<ServeExample> = {
  name: 'serve',
  shapes: [OPTION],
  examples: () =>
    SERVED.flatMap((served, kind) => [
      ...transcripts()
        .filter((each) => each.options.length > 0)
        .map((each) => ({ origin: `the transcript ${each.name}, server ${kind}`, served, bytes: each.options })),
      ...MADE.map(([origin, ...parts]) => ({
        origin: `${origin}, server ${kind}`,
        served,
        bytes: Buffer.concat(parts),
      })),
    ]),
  check: ({ served }, bytes) => {
    takeCount();
    const seen = run(served, bytes);
    const taken = takeCount();
    const expected = expectServe(served, bytes);
    same('ending', seen.ending, expected.ending);
    same('replies', seen.replies.join('\n'), expected.replies.join('\n'));
    same('session', seen.session, expected.session);
    if (taken > MEMORY_LIMIT + 16 * bytes.length) throw new Error(`buffers of ${taken} bytes for ${bytes.length}`);
    return expected.ending;
  },
};

const offerOf = ({ fixed, noZeroes, maxOptions, exports }: Served): ServerOffer<ExportOffer> => {
  const offers = exports.map((each): ExportOffer => {
    return {
      ...{ name: each.name, description: each.description, size: 65536, requireBlockSize: each.requireBlockSize },
      ...{ blockSize: { minimum: 1, preferred: 4096, maximum: 1 << 25 }, requireTls: false },
      contextNames: () => each.contexts,
      transmissionFlags: () => 1,
    };
  });
  return {
    ...{ style: 'newstyle', fixedNewstyle: fixed, noZeroes, maxOptions, features: DEFAULT_FEATURES, tls: 'off' },
    exports: () => offers,
    find: (name) => offers.find((each) => each.name === name),
  };
};

function run(served: Served, bytes: Buffer): ServeResult {
  const result: ServeResult = { ending: 'session', replies: [], session: '' };
  const said: Uint8Array[] = [];
  const handshake = serve(offerOf(served));
  let at = 0;
  try {
    for (let input = Buffer.alloc(0); ;) {
      const { done, value } = handshake.next(input);
      if (done === true) {
        if (value === null) result.ending = 'left';
        else {
          const contexts = [...value.contexts].map(([id, name]) => `${id}=${name}`);
          result.session = `${JSON.stringify(value.export.name)} ${value.style} ${contexts.join()}`;
        }
        break;
      }
      input = Buffer.alloc(0);
      if (value === START_TLS) throw new Error('TLS where none is offered');
      if (typeof value === 'function') throw new Error('a wait where no export is made');
      if (typeof value !== 'number') {
        said.push(value);
        continue;
      }
      if (value > 65536) throw new Error(`a read of ${value} bytes at once`);
      if (at + value > bytes.length) {
        result.ending = 'cut short';
        break;
      }
      input = Buffer.from(bytes.subarray(at, (at += value)));
    }
  } catch (error) {
    if (!(error instanceof NbdProtocolError)) throw error;
    result.ending = 'violation';
  }
  // Whether the session was opened by EXPORT_NAME, whose answer has no frame: 10 bytes, or 134.
  takeReplies(said, result);
  return result;
}

function takeReplies(said: readonly Uint8Array[], { replies }: ServeResult): void {
  said.forEach((each, index) => {
    const bytes = Buffer.from(each);
    if (index === 0) {
      same('the greeting', bytes.toString('latin1', 0, 16), 'NBDMAGICIHAVEOPT');
      same("the greeting's length", bytes.length, 18);
      return;
    }
    if (bytes.length === 10 || bytes.length === 134) {
      if (bytes.toString('hex', 0, 8) === '0000000000010000' && index === said.length - 1) return;
    }
    same("a reply's magic", bytes.toString('hex', 0, 8), '0003e889045565a9');
    const [option, type, length] = [bytes.readUInt32BE(8), bytes.readUInt32BE(12), bytes.readUInt32BE(16)];
    same("a reply's length", length, bytes.length - 20);
    if (type >= 2 ** 31 && length > 4096) throw new Error(`an error text of ${length} bytes`);
    replies.push(`${option} ${type}${type === 3 ? ` ${bytes.readUInt16BE(20)}` : ''}`);
  });
}
