// The seed of everything random in a test file: from the clock, or FAST_CHECK_SEED (or SEED) to repeat a run. Titles
// of the tests say it.

export const SEED = Number(process.env['FAST_CHECK_SEED'] ?? process.env['SEED'] ?? Date.now() % 0x7fff_ffff);

/** For the title of a describe. */
export const withSeed = (title: string): string => `${title}, seed ${SEED} (set FAST_CHECK_SEED to repeat)`;
