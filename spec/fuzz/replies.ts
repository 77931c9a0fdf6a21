// The family of replies, in each of the three styles: the decoder against the reference.

import fc from 'fast-check';

import { type Example, type Family } from './family.js';
import { takeCount } from './memory.js';
import { type MessageShape } from './mutate.js';
import { type Random, segments } from './random.js';
import { type Asked, expectReplies, type ReplyContext, type ReplyMode } from './reply-reference.js';
import { replyStreams } from './reply-streams.js';
import { ReplyRun, type Way } from './reply-run.js';
import { transcripts } from './transcripts.js';

interface ReplyExample extends Example, ReplyContext {
  readonly asked: readonly Asked[];
}

const SHAPES: Readonly<Record<ReplyMode, MessageShape>> = {
  simple: {
    magic: Buffer.from('67446698', 'hex'),
    fields: [
      { at: 4, width: 4 },
      { at: 8, width: 8 },
    ],
  },
  structured: {
    magic: Buffer.from('668e33ef', 'hex'),
    fields: [
      { at: 4, width: 2 },
      { at: 6, width: 2 },
      { at: 8, width: 8 },
      { at: 16, width: 4 },
      // The beginning of the payload: an offset, a context, an error and its text's length.
      { at: 20, width: 8 },
      { at: 20, width: 4 },
      { at: 24, width: 2 },
      { at: 24, width: 4 },
      { at: 28, width: 4 },
      { at: 32, width: 4 },
    ],
  },
  extended: {
    magic: Buffer.from('6e8a278c', 'hex'),
    fields: [
      { at: 4, width: 2 },
      { at: 6, width: 2 },
      { at: 8, width: 8 },
      { at: 16, width: 8 },
      { at: 24, width: 8 },
      { at: 32, width: 8 },
      { at: 32, width: 4 },
      { at: 36, width: 4 },
      { at: 36, width: 2 },
      { at: 40, width: 8 },
      { at: 48, width: 8 },
    ],
  },
};

const MADE = 400;

/**
 * What one input may take: the longest chunk that is collected before it is looked at, the decoder's own scratch
 * buffer, and a few times the input.
 */
const MEMORY_LIMIT = 16 * 2 ** 20 + 2 ** 19;

export const replyFamily = (mode: ReplyMode): Family<ReplyExample> => ({
  name: `replies-${mode}`,
  // All magics, because one style's message in the midst of another's is an input of interest.
  shapes: [SHAPES[mode], ...Object.values(SHAPES).filter((shape) => shape !== SHAPES[mode])],
  examples: (seed) => [
    ...transcripts()
      .filter((each) => each.mode === mode)
      .map((each) => ({
        ...{ origin: `the transcript ${each.name}`, mode, bytes: each.replies, asked: each.asked },
        ...{ exportSize: each.exportSize, contexts: each.contexts },
      })),
    ...fc
      .sample(replyStreams(mode), { seed, numRuns: MADE })
      .map((stream, index) => ({ ...stream, origin: `stream ${index} of ${MADE}` })),
  ],
  check: checkReplies,
});

function checkReplies(example: ReplyExample, bytes: Buffer, random: Random): string {
  const expected = expectReplies(example, example.asked, bytes);
  const way: Way = random.oneIn(4) ? random.pick(['targets', 'large targets'] as const) : 'push';
  const run = new ReplyRun(example, example.asked, way, random.oneIn(2));
  takeCount();
  for (const segment of segments(bytes, random)) run.feed(segment, way);
  const taken = takeCount();
  run.check(expected);
  if (taken > MEMORY_LIMIT + 4 * bytes.length) throw new Error(`buffers of ${taken} bytes for ${bytes.length}`);
  if (expected.violation) return 'violation';
  const endings = new Set(expected.outcomes.map(({ ending }) => ending.split(' ')[0]));
  if (endings.has('NbdProtocolError')) return 'a command failed by EPROTO';
  if (endings.has('pending')) return 'cut short';
  return endings.has('NbdCommandError') ? 'a command failed by the server' : 'all succeeded';
}
