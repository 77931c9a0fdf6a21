// The speed that a progress bar shows while nothing moves.

import { expect, it } from '@jest/globals';

import { shownSpeed, type Speed } from '../../lib/cli/output/progress.js';

const SPEED: Speed = { rate: 1000, eta: 7000 };

it.each<[idle: number, shown: Speed]>([
  [0, SPEED],
  [1999, SPEED],
  [2500, { rate: 500, eta: 7000 }],
  [4000, { rate: 200, eta: 7000 }],
  [5000, { rate: 0, eta: null }],
  [3_600_000, { rate: 0, eta: null }],
])('%d ms after the last update', (idle, shown) => {
  const { rate, eta } = shownSpeed(SPEED, idle);
  expect(rate).toBeCloseTo(shown.rate);
  expect(eta).toBe(shown.eta);
});
