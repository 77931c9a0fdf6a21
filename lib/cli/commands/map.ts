// `nbd map`, which is `nbd info --map` and can also draw the map as a picture.

import { CONTEXT_BASE_ALLOCATION } from '../sdk.js';
import type { Command } from '../command.js';
import { RANGE_OPTIONS, givenRange } from '../range.js';
import { CONNECT_OPTIONS, onlyServer, SERVER } from '../server.js';
import { COLOUR_OPTIONS, UsageError } from '../output/text.js';

export const map: Command = {
  spec: {
    name: 'map',
    summary: 'show which parts of an export are data, hole or zero, as text or as a picture',
    usage: [
      `[--context=NAME] [-o N|--offset=N] [-n N|--length=N] [--totals] [--json] ${SERVER}`,
      `--picture=FILE.svg|FILE.html [--context=NAME ...] [-o N] [-n N] ${SERVER}`,
    ],
    description: [
      'Without --picture, the same as nbd info --map; on a terminal, a coloured bar follows the list. The exit code is ' +
        '0, or 1 after an error; nothing is printed and no picture is written then.',
      'A picture is a block map with a legend and totals; in HTML, it shows the range under the pointer. Several ' +
        'contexts, such as the allocation and a dirty bitmap, are drawn below each other.',
    ],
    options: [
      {
        names: ['context', 'map'],
        takes: 'value',
        value: 'NAME',
        help: 'The metadata context. Default base:allocation. May be repeated with --picture.',
      },
      ...RANGE_OPTIONS,
      { names: ['totals', 'total'], help: 'Print the number of bytes of each type.' },
      { names: ['json'], help: 'Print JSON.' },
      { names: ['picture'], takes: 'value', value: 'FILE', help: 'Write a picture: FILE.svg or FILE.html.' },
      { names: ['bar'], help: 'Print the bar even if standard output is not a terminal.' },
      { names: ['no-bar'], help: 'Do not print the bar.' },
      ...COLOUR_OPTIONS,
      ...CONNECT_OPTIONS,
    ],
    examples: [
      ['nbd map nbd://localhost', 'The extents, one per line.'],
      ['nbd map --totals --json nbd://localhost', 'How much is data.'],
      [
        'nbd map --picture disk.html --context base:allocation --context qemu:dirty-bitmap:b0 nbd://localhost',
        'The allocation and a dirty bitmap, for a browser.',
      ],
    ],
  },
  async run(args, context) {
    const server = onlyServer(args);
    givenRange(args);
    const contexts = args.options.filter(({ name }) => name === 'context').map(({ value }) => value ?? '');
    const picture = args.value('picture');
    if (picture !== undefined) {
      const { drawPicture } = await import('../map/picture.js');
      await drawPicture(args, contexts, picture, server, context);
      return;
    }
    if (contexts.length > 1) throw new UsageError('several contexts require --picture');
    const { showMap } = await import('../map/report.js');
    await showMap(args, contexts[0] ?? CONTEXT_BASE_ALLOCATION, server, context);
  },
};
