/**
 * Without a check of types, which is most of what loading it would take.
 *
 * @jest-config-loader ts-node
 * @jest-config-loader-options {"transpileOnly": true, "compilerOptions": {"module": "CommonJS", "moduleResolution": "bundler"}}
 */

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import type { Config } from 'jest';

const RESULT_REPORTER = '<rootDir>/spec/support/result-reporter.mjs';
/** jest loads this file as CommonJS. */
const SPECS = join(__dirname, 'spec');
/** `npm run test:long` runs the specs that take longest, and `npm test` all others. */
const isLong = process.env['NBD_SDK_LONG'] === '1';

/** The specs that `npm test` runs for a short time and `npm run test:long` for a long one. */
const ofBothLengths = (): string[] =>
  readdirSync(SPECS, { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.spec.ts'))
    .filter((path) => readFileSync(join(SPECS, path), 'utf8').includes("/support/long.js'"))
    .map((path) => `**/spec/${path}`);

const resultFile = process.env['JEST_RESULT_FILE'];

// With it, every Node that a spec starts reads those certificates first, which takes longer than all else of its start.
delete process.env['NODE_EXTRA_CA_CERTS'];

const config: Config = {
  // lib/ is a root only so that coverage counts the files that no spec loads.
  roots: ['<rootDir>/spec', '<rootDir>/lib'],
  testMatch: isLong ? ['**/*.long.spec.ts', ...ofBothLengths()] : ['**/*.spec.ts'],
  testPathIgnorePatterns: ['/node_modules/', '/spec/perf/', ...(isLong ? [] : ['\\.long\\.spec\\.ts$'])],
  testEnvironment: '<rootDir>/spec/support/plain-environment.mjs',
  extensionsToTreatAsEsm: ['.ts'],
  moduleNameMapper: {
    '^nbd-sdk$': '<rootDir>/lib/index.ts',
    '^nbd-sdk/server$': '<rootDir>/lib/server/index.ts',
    '^nbd-sdk/testing$': '<rootDir>/lib/testing/index.ts',
    '^nbd-sdk/web$': '<rootDir>/lib/web/index.ts',
    '^nbd-sdk/web/bulk$': '<rootDir>/lib/web/bulk/index.ts',
    '^nbd-sdk/fleet$': '<rootDir>/lib/fleet/index.ts',
    '^(\\.{1,2}/.*)\\.js$': '$1',
  },
  transform: {
    '^.+\\.ts$': '<rootDir>/spec/support/transform.mjs',
  },
  // Much of a run is waiting for processes: three workers, whatever jest would take of the cores.
  maxWorkers: 3,
  testSequencer: '<rootDir>/spec/support/longest-first.mjs',
  // A worker has nothing to wait for, and needs more than half a second to exit where a dozen other processes are busy.
  workerGracefulExitTimeout: 30_000,
  // Only a test that hangs takes this long: no test may fail because the machine is busy.
  testTimeout: 300_000,
  collectCoverageFrom: ['lib/**/*.ts'],
  coverageDirectory: 'coverage',
  coverageProvider: 'v8',
  // The rooms where a line that no test runs is a rule of the protocol that nobody checked.
  coverageThreshold: {
    global: {},
    './lib/protocol/': { lines: 95 },
    './lib/client/': { lines: 95 },
  },
  // .ci/run counts the tests from this file; everybody else reads jest's own summary.
  reporters: resultFile === undefined ? ['default'] : ['default', [RESULT_REPORTER, { file: resultFile }]],
};

export default config;
