// The order of test files. Jest runs the longest first, which it knows from its last run; on a fresh clone it knows none
// and takes the largest files, so that a long one may begin last, alone. There, these come first.

import Sequencer from '@jest/test-sequencer';

const LONGEST = [];

const rankOf = ({ path, duration }) => {
  const rank = LONGEST.findIndex((name) => path.endsWith(`/spec/${name}.spec.ts`));
  return duration !== undefined || rank === -1 ? LONGEST.length : rank;
};

// Jest loads a sequencer by its default export.
export default class LongestFirst extends Sequencer.default {
  sort(tests) {
    return [...super.sort(tests)].sort((a, b) => rankOf(a) - rankOf(b));
  }
}
