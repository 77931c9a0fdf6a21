import { parse } from '../../lib/cli/arguments.js';
import type { CliCommandSpec } from '../../lib/cli/command-spec.js';
import { info } from '../../lib/cli/commands/info.js';
import { findQuestion } from '../../lib/cli/info/features.js';
import { duration, general, humanSize, jsonString, parseSize, roundSize } from '../../lib/cli/output/text.js';

const SPEC: CliCommandSpec = {
  name: 'x',
  summary: '',
  usage: [],
  options: [
    { names: ['map'], takes: 'optional' },
    { names: ['color', 'colour'] },
    { names: ['requests'], short: 'R', takes: 'value' },
    { names: ['request-size'], takes: 'value' },
    { names: ['list'], short: 'L' },
  ],
  examples: [],
};

const options = (...words: string[]): unknown[] =>
  parse(SPEC, words).options.map(({ name, value }) => (value === undefined ? name : `${name}=${value}`));
const operands = (...words: string[]): unknown[] => [...parse(SPEC, words).operands];

describe('the command line', () => {
  it('is read as getopt_long reads it', () => {
    expect(options('--map', 'uri', '--colou', '-LR5', '-R', '6', '--requests=7', '--map=a:b')).toEqual([
      'map',
      'color',
      'list',
      'requests=5',
      'requests=6',
      'requests=7',
      'map=a:b',
    ]);
    expect(operands('--map', 'uri', '-L', '-', '--', '--list')).toEqual([
      { word: 'uri' },
      { word: '-' },
      { word: '--list' },
    ]);
    expect(options('--', '-L')).toEqual([]);
    expect(options('--requests', '--list')).toEqual(['requests=--list']);
  });

  it('keeps the words of [ CMD ARGS ] together', () => {
    expect(operands('[', 'nbdkit', '-L', '--', 'x', ']', '-L', 'file')).toEqual([
      { command: ['nbdkit', '-L', '--', 'x'] },
      { word: 'file' },
    ]);
    expect(operands('--', '[', 'a', ']', '[', 'b', ']')).toEqual([{ command: ['a'] }, { command: ['b'] }]);
    expect(operands('[', 'sh', '-c', ']', ']')).toEqual([{ command: ['sh', '-c', ']'] }]);
  });

  it.each([
    [['--nope'], "unrecognized option '--nope'"],
    [['-x'], "invalid option -- 'x'"],
    [['--request'], "option '--request' is ambiguous; possibilities: '--requests' '--request-size'"],
    [['--requests'], "option '--requests' requires an argument"],
    [['-R'], "option 'R' requires an argument"],
    [['--list=1'], "option '--list' doesn't allow an argument"],
    [['[', 'a'], "'[' without ']'"],
  ])('refuses %j', (words, message) => {
    expect(() => parse(SPEC, words)).toThrow(message);
  });

  it('knows every spelling of --can, and of what to ask', () => {
    const yes = ['can', 'is', 'has', 'have'];
    const no = ['cannot', 'can-not', 'cant', 'isnt', 'isnot', 'is-not'];
    const more = ['hasnt', 'hasnot', 'has-not', 'havent', 'havenot', 'have-not'];
    const read = (name: string): string | undefined => parse(info.spec, [`--${name}`, 'trim']).options[0]?.name;
    expect(yes.map(read)).toEqual(yes.map(() => 'can'));
    expect([...no, ...more].map(read)).toEqual([...no, ...more].map(() => 'cannot'));
    const names = ['sr', 'structured reply', 'structured_replies', 'EH', 'extended-header', 'READ_ONLY', 'readonly'];
    for (const name of [...names, 'fastzero', 'multi conn', 'block-status-payload']) findQuestion(name);
    expect(() => findQuestion('fly')).toThrow('unknown --can or --is option: fly');
  });
});

describe('the texts', () => {
  it('are libnbd’s', () => {
    expect([0n, 512n, 1024n, 1536n, 1048576n, 7n << 60n, 3n << 40n].map(humanSize)).toEqual([
      ...['0', '512', '1K', '1536', '1M', '7E', '3T'],
    ]);
    expect(jsonString('a"b\\c\n\u0001ü')).toBe('"a\\"b\\\\c\\u000a\\u0001ü"');
    expect([100, 50, 33.333333333, 0.00001234567, 0, 1e-7, 12.5].map(general)).toEqual([
      ...['100', '50', '33.3333', '1.23457e-05', '0', '1e-07', '12.5'],
    ]);
  });

  it('are readable sizes and times, and sizes that people write', () => {
    expect([0, 999, 1024, 1536 * 1024, 2 ** 40 * 200].map(roundSize)).toEqual([
      ...['0 B', '999 B', '1.00 KiB', '1.50 MiB', '200 TiB'],
    ]);
    expect([0, 61.4, 3725, Infinity].map(duration)).toEqual(['0:00', '1:01', '1:02:05', '-:--']);
    expect(['1', '2s', '3K', '1m', '7E', '5b'].map((text) => parseSize('x', text))).toEqual([
      ...[1n, 1024n, 3072n, 1048576n, 7n << 60n, 5n],
    ]);
    for (const text of ['', '-1', '1.5', '1kb', '8E', 'k']) expect(() => parseSize('x', text)).toThrow(/--x: /);
  });
});
