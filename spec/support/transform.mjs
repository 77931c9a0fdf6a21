// TypeScript for jest by esbuild, as tsconfig.json has it: no types are checked here (`npm run types` does).

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';

import esbuild from 'esbuild';

const OPTIONS = {
  loader: 'ts',
  format: 'esm',
  target: 'node20.19',
  sourcemap: 'external',
  // An import of which only types are used stays: that tsconfig.json has verbatimModuleSyntax.
  tsconfigRaw: { compilerOptions: { target: 'ES2023', verbatimModuleSyntax: true } },
};
const STATE = [esbuild.version, readFileSync(import.meta.filename, 'utf8')].join('\0');

const optionsOf = (path) => ({ ...OPTIONS, sourcefile: path });

// Jest loads a transformer by its default export.
export default {
  process: (text, path) => esbuild.transformSync(text, optionsOf(path)),
  processAsync: (text, path) => esbuild.transform(text, optionsOf(path)),
  getCacheKey: (text, path, { configString, instrument }) =>
    createHash('sha256')
      .update([STATE, path, configString, String(instrument), text].join('\0'))
      .digest('hex'),
};
