// The order of test files. Jest runs the longest first, which it knows from its last run; on a fresh clone it knows none
// and takes the largest files, so that a long one may begin last, alone. There, these come first.

import Sequencer from '@jest/test-sequencer';

const LONGEST = [
  'fleet/fleet',
  'api/package',
  'wire/wire',
  'cli/info',
  'cli/map-several',
  'cli/connect-options',
  'cli/copy',
  'interop/tls-x509',
  'faults/signals',
  'fleet/harm',
  'cli/fleet/fleet',
  'web/browser',
  'readme/readme',
  'examples/examples',
  'readme/backup',
  'runtimes/runtimes',
  'ladder/ladder',
  'cli/reconnect',
  'cli/serve',
  'cli/interrupted',
  'cli/completion',
  'cli/single',
  'cli/tools',
  'cli/copy-ends',
  'cli/erase',
  'cli/bad-input',
  'cli/own-copy',
  'cli/copy-parts',
  'fuzz/fuzz',
  'fuzz/against-libnbd',
  'client/transmission/reads',
  'client/transmission/many-waiting',
  'wire/cuts',
  'bulk/random-pools',
  'bulk/partitions',
  'bulk/random',
  'bulk/maps-load',
  'interop/client-libnbd',
  'interop/transports-command',
  'web/graph',
  'cli/killed-copies',
];

const rankOf = ({ path }) => {
  const rank = LONGEST.findIndex((name) => path.endsWith(`/spec/${name}.spec.ts`));
  return rank === -1 ? LONGEST.length : rank;
};

// Jest loads a sequencer by its default export.
export default class LongestFirst extends Sequencer {
  sort(tests) {
    const sorted = super.sort(tests);
    // Where jest knows some of them, it runs those last.
    if (sorted.every(({ duration }) => duration !== undefined)) return sorted;
    return [...sorted].sort((a, b) => rankOf(a) - rankOf(b));
  }
}
