// Writes jest's totals to a file, for a script that runs jest through npm and wants to read them afterwards.

import { writeFileSync } from 'node:fs';

// Jest loads a reporter by its default export.
export default class ResultReporter {
  #file;

  constructor(_globalConfig, options) {
    this.#file = options.file;
  }

  onRunComplete(_contexts, results) {
    const { numPassedTests, numFailedTests, numPendingTests, numRuntimeErrorTestSuites } = results;
    // A file that could not even be loaded has no tests to count as failed.
    const failed = numFailedTests + numRuntimeErrorTestSuites;
    writeFileSync(this.#file, `${JSON.stringify({ passed: numPassedTests, failed, skipped: numPendingTests })}\n`);
  }
}
