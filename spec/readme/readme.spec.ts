// The README holds: its programs are correct and do what their comments promise, and its tables agree with the code.

import { describe, expect, it } from '@jest/globals';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { ROOT } from '../support/root.js';
import { checkTypes, findBlocks, runBlocks } from './blocks.js';
import * as optionTables from './option-tables.js';
import * as readmeTables from './tables.js';

// A compiler and a process, on a machine that may be busy.
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
const README = read('README.md');
const SERVER_PAGE = read('lib/server/README.md');

type Check = (markdown: string) => string[];

const { checkServerPage, ...others } = optionTables;
/** The checks of the README; both modules also export what the checks share. */
const tables = Object.fromEntries(
  [...Object.entries(readmeTables), ...Object.entries(others)].filter(([name]) => /^check[A-Z]/.test(name)),
) as Readonly<Record<string, Check>>;

const block = (code: string, marker = '<!-- example: with connection -->\n\n'): string =>
  `# A page\n\n${marker}\`\`\`ts\n${code}\n\`\`\`\n`;

describe.each([
  ['README.md', README, 8],
  ['lib/server/README.md', SERVER_PAGE, 0],
])('the programs of %s', (_path, page, least) => {
  const { blocks, problems } = findBlocks(page);

  it('state what they need', () => {
    expect(problems).toEqual([]);
    expect(blocks.length).toBeGreaterThan(least);
  });

  it('are correct to the type checker', async () => {
    expect(await checkTypes(blocks)).toEqual([]);
  });

  it('run, and print what their comments promise', async () => {
    expect(await runBlocks(blocks)).toEqual([]);
  });
});

describe('the checks of programs', () => {
  it('find a block that does not state what it needs', () => {
    expect(findBlocks(block('1;', '')).problems).toEqual(['line 3: no marker before it']);
    expect(findBlocks(block('1;', '<!-- example: hopeful -->\n')).problems).toEqual([
      'line 4: unknown marker "hopeful"',
    ]);
    expect(findBlocks(block('1;', '<!-- example: complete -->\n\ntext\n')).problems).toEqual([
      'line 5: a marker without a block',
      'line 6: no marker before it',
    ]);
  });

  it('see a wrong name, a wrong type and a wrong number of arguments, and where', async () => {
    const { blocks } = findBlocks(
      block("await connection.cash(1, 2);\nawait connection.cache('1', 2);\nconnection.flush(1, 2);"),
    );
    expect(await checkTypes(blocks)).toEqual([
      expect.stringMatching(/^line 6: Property 'cash' does not exist/),
      expect.stringMatching(/^line 7: Argument of type 'string' is not assignable/),
      expect.stringMatching(/^line 8: Argument of type/),
    ]);
  });

  it('see what a block prints, and what it throws', async () => {
    const broken = [
      'console.log(connection.getSize()); // 1n',
      'console.log(1); // 1',
      'await connection.pread(0, 0);',
      'console.log(2);',
    ];
    const { blocks } = findBlocks(broken.map((code) => block(code)).join(''));
    expect(await runBlocks(blocks)).toEqual([
      'line 5: says "1n" and prints "67108864n"',
      expect.stringMatching(/^line 19: NbdStrictError: pread of 0 bytes/),
      'line 26: says "" and prints "2"',
    ]);
  });
});

describe('the tables of the README', () => {
  it.each(Object.entries(tables))('%s finds nothing wrong', (_name, check) => {
    expect(check(README)).toEqual([]);
  });

  it.each([
    ['checkCalls', '`connectUnix(path, signal?)`', '`connectUnix(path)`', /^connectUnix: says connectUnix\(path\)/],
    ['checkCalls', '`aioOptGo(completion?)`', '`aioOptGo()`', /^optGo raw: says/],
    ['checkCalls', '`optAbort()`', '`optAvoid()`', /^call optAbort is not there$/],
    ['checkFacts', '`getBlockSize(type)`', '`getBlockSize()`', /^getBlockSize: says/],
    ['checkFacts', '| `isRotational()` ', '| `isRound()` ', /^isRotational is not there$/],
    ['checkStates', "| `'dead'` ", "| `'gone'` ", /^state 'dead' is not there$/],
    ['checkStates', '`aioIsReady()`', '`aioIsGood()`', /^ready: says aioIsGood\(\), is aioIsReady\(\)$/],
    ['checkFunctionOptions', '| `stopAtFirst` ', '| `stop` ', /^option stopAtFirst is not there$/],
    [
      'checkFunctionOptions',
      '4096 (`copy`), 0',
      '4096 (`copy`), 1',
      /^default of sparse of createWriteStream: says 1, is 0$/,
    ],
    [
      'checkFunctionOptions',
      '| `copy`, `createWriteStream` ',
      '| `copy` ',
      /^sparse: function createWriteStream is not there$/,
    ],
    ['checkEnds', '| `zeroRuns` ', '| `runs` ', /^field zeroRuns is not there$/],
    ['checkTransient', '`EADDRNOTAVAIL`, ', '', /^code EADDRNOTAVAIL is not there$/],
    ['checkServerMembers', '`dropConnections()`', '`drop()`', /^member dropConnections is not there$/],
    ['checkAnchors', '(#closing-a-connection)', '(#closing)', /^#closing does not exist$/],
    [
      'checkCommands',
      '`cache(count, offset, flags?, signal?)`',
      '`cache(offset, count)`',
      /^cache: says cache\(offset, count\)/,
    ],
    ['checkCommands', '`nbd_block_status_64`', '`nbd_block_status64`', /^blockStatus64 in libnbd: says/],
    ['checkCommands', '`canCache()`', '`canTrim()`', /^cache: need canCache\(\) is not there$/],
    ['checkCommands', '`aioFlush(completion?, flags?)`', '`aioFlush(flags?)`', /^flush raw: says/],
    ['checkCommands', '`REQ_ONE`', '`DF`', /^blockStatus: flag REQ_ONE is not there$/],
    ['checkFlags', '`canDf()`', '', /^CMD_FLAG_DF: need canDf\(\) is not there$/],
    ['checkOptions', '`maxInFlight` ', '`maxFlight` ', /^option maxInFlight is not there$/],
    ['checkOptions', '`Infinity`', '`1000`', /^default of maxQueued: says 1000, is Infinity$/],
    ['checkPoolOptions', '`growTimeout` ', '`growTime` ', /^option growTimeout is not there$/],
    ['checkPoolOptions', '`60000`', '`30`', /^default of reconnect.within: says 30, is 60000$/],
    ['checkEvents', '| `away` ', '| `gone` ', /^event away is not there$/],
    ['checkErrors', '`NbdStateError` ', '`NbdStatusError` ', /^class NbdStateError is not there$/],
    ['checkEvents', '`(state, previous)`', '`(state)`', /^stateChange: says \(state\), is \(state, previous\)$/],
    ['checkEvents', '| `drain` ', '| `empty` ', /^event drain is not there$/],
    ['checkChannels', '| `nbd:command:end` ', '| `nbd:command:stop` ', /^channel nbd:command:end is not there$/],
    ['checkCommandLine', '| `dump` ', '| `show` ', /^nbd dump is not there$/],
    ['checkNames', '`statsBytesSent()`', '`statsBytes()`', /^statsBytesSent is not named$/],
    ['checkNames', '`SIZE_PREFERRED`', '`SIZE_BEST`', /^SIZE_BEST does not exist$/],
    ['checkPackage', '`npm run check`', '`npm run verify`', /^npm script verify does not exist$/],
    ['checkPackage', '[p-queue]', '[q-peue]', /^package p-queue is not there$/],
    ['checkPackage', '(examples/backend.ts)', '(examples/back.ts)', /^examples\/back.ts does not exist$/],
  ] as const)('%s sees a change of %s into %s', (name, right, wrong, problem) => {
    expect(README).toContain(right);
    expect(tables[name]?.(README.replace(right, wrong))).toContainEqual(expect.stringMatching(problem));
  });
});

describe('the tables of lib/server/README.md', () => {
  it('are right', () => {
    expect(checkServerPage(SERVER_PAGE)).toEqual([]);
    expect(optionTables.checkAnchors(SERVER_PAGE)).toEqual([]);
  });

  it.each([
    ['| `maxOptions` ', '| `maxOption` ', /^NbdServerOptions: maxOptions is not there$/],
    ['| 256 MiB ', '| 128 MiB ', /^default of maxTotalBytes: says 134217728, is 268435456$/],
    ['| `requireTls` ', '| `needTls` ', /^NbdExportOptions: requireTls is not there$/],
    ['| `crl` ', '| `revoked` ', /^NbdServerTlsOptions: crl is not there$/],
    ['| `afterBytes` ', '| `after` ', /^fault key afterBytes is not there$/],
    ['`detectZeroes`', '`detect`', /^FileBackend: detectZeroes is not there$/],
    ['`copiesData`', 'copies', /^copiesData of NbdBackend is not named$/],
    ['`blockStatusPayload`', 'filters', /^blockStatusPayload of FlagOverrides is not named$/],
  ])('see a change of %s into %s', (right, wrong, problem) => {
    expect(SERVER_PAGE).toContain(right);
    expect(checkServerPage(SERVER_PAGE.replaceAll(right, wrong))).toContainEqual(expect.stringMatching(problem));
  });
});
