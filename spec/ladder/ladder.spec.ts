// The same numbered behaviours against every server there is. A failing test names its rungs; the matrix at the end
// shows what each server supports, and how it reports what it does not.

import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';

import { type Certificates, makeCertificates } from '../support/certificates.js';
import { describeWith, hasTool } from '../support/tools.js';
import { type Cell, climb, drawMatrix, failureOf, isFailed, numbered } from './climb.js';
import { GROUPS } from './rungs/index.js';
import { type Column, COLUMNS, type LadderServer } from './servers.js';

const START_DEADLINE = 600_000;
const GROUP_DEADLINE = 1_200_000;

const groups = numbered(GROUPS);
const matrix = new Map<string, Cell[]>();
let certificates: Certificates | null = null;

beforeAll(async () => {
  if (hasTool('openssl')) certificates = await makeCertificates();
}, START_DEADLINE);

afterAll(async () => {
  await certificates?.remove();
  if (matrix.size > 0) process.stdout.write(`${drawMatrix(groups, matrix)}\n`);
});

function column({ name, start, isComplete }: Column): void {
  let server: LadderServer;
  const cells: Cell[] = [];

  beforeAll(async () => {
    server = await start(certificates);
    matrix.set(name, cells);
  }, START_DEADLINE);

  afterAll(() => server.stop(), START_DEADLINE);

  for (const { name: groupName, rungs } of groups) {
    it(
      groupName,
      async () => {
        const failures: (readonly [(typeof rungs)[number], unknown])[] = [];
        for (const rung of rungs) {
          let cell = await climb(server, rung);
          if (isFailed(cell) && (await server.revived())) cell = await climb(server, rung);
          cells[rung.number - 1] = cell;
          if (isFailed(cell)) failures.push([rung, cell.failed]);
        }
        if (failures.length > 0) throw failureOf(failures);
      },
      GROUP_DEADLINE,
    );
  }

  if (isComplete === true) {
    it('has every rung', () => {
      const missing = cells.flatMap((cell, i) => (cell === 'ok' ? [] : [{ rung: i + 1, cell }]));
      // Without openssl there is no TLS to climb.
      const hasTls = certificates !== null;
      expect(missing.filter(({ cell }) => hasTls || !JSON.stringify(cell).includes('openssl'))).toEqual([]);
    });
  }
}

describe('ladder', () => {
  for (const entry of COLUMNS) {
    const fn = (): void => {
      column(entry);
    };
    if (entry.missing !== null) describe.skip(`${entry.name} (${entry.missing})`, fn);
    else describeWith(entry.needs, entry.name, fn);
  }
});
