import { describe, expect, it } from '@jest/globals';
import { readFileSync } from 'node:fs';
import { PACKAGE_NAME, VERSION } from '../../lib/util/version.js';

describe('the version', () => {
  it('is that of package.json', () => {
    const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
    expect(JSON.parse(text)).toMatchObject({ name: PACKAGE_NAME, version: VERSION });
  });
});
