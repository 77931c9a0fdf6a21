// `nbd map`, which is `nbd info --map` and can also draw the map as a picture.

import { CONTEXT_BASE_ALLOCATION } from '../sdk.js';
import type { CliCommand } from '../command.js';
import { RANGE_OPTIONS, givenRange } from '../range.js';
import { CONNECT_OPTIONS, onlyServer, SERVER } from '../server.js';
import { KNOWN_CONTEXTS } from '../map/contexts.js';
import { COLOUR_OPTIONS, UsageError } from '../output/text.js';
import { visible } from '../../util/visible.js';

export const map: CliCommand = {
  spec: {
    name: 'map',
    summary: 'show which parts of an export are data, hole or zero, as text or as a picture',
    usage: [
      `[--context=NAME ...] [-o N|--offset=N] [-n N|--length=N] [--totals] [--json] ${SERVER}`,
      `--dirty[=BITMAP] [-o N] [-n N] [--totals] [--json] ${SERVER}`,
      `--picture=FILE.svg|FILE.html [--context=NAME ...] [-o N] [-n N] ${SERVER}`,
    ],
    description: [
      'With one context, the same as nbd info --map; on a terminal, a coloured bar follows the list. The exit code is ' +
        '0, or 1 after an error; nothing is printed and no picture is written then.',
      'With several contexts a line has the offset, the length, and the type of each context with its meaning, in the ' +
        'order of the options. In JSON an element is { "offset", "length", "contexts": { NAME: { "type", ' +
        '"description" } } }. --totals lists each context under its name; in JSON it is an object with a list for each.',
      'With --dirty a line has the offset and the length of a range that has changed, and "zero" where all of it is ' +
        'known to read as zeroes, else "data"; in JSON { "offset", "length", "zero": true or false }. --totals has ' +
        'the bytes of "data", "zero" and "clean". A bitmap that the server does not have, or cannot report, is an error.',
      'A picture is a block map with a legend, totals and, in HTML, the range under the pointer. Several contexts, such ' +
        'as a dirty bitmap beside the allocation, are drawn below each other.',
    ],
    options: [
      {
        names: ['context', 'map'],
        takes: 'value',
        value: 'NAME',
        choices: KNOWN_CONTEXTS,
        help: 'The metadata context; base:allocation unless named. May be repeated.',
      },
      {
        names: ['dirty'],
        takes: 'optional',
        value: 'BITMAP',
        help:
          'What a dirty bitmap marks as changed: the name of a QEMU bitmap, or the full name of a context. Default: the only ' +
          'QEMU bitmap of the export.',
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
      ['nbd map --context base:allocation --context qemu:dirty-bitmap:b0 nbd://localhost', 'Both, side by side.'],
      ['nbd map --dirty=b0 --totals nbd://localhost', 'How much an incremental backup would copy.'],
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
    const again = contexts.find((name, index) => contexts.indexOf(name) !== index);
    if (again !== undefined) throw new UsageError(`--context: ${visible(again)} is there twice`);
    const picture = args.value('picture');
    if (args.has('dirty')) {
      if (contexts.length > 0 || picture !== undefined) {
        throw new UsageError('you cannot use --dirty with --context or --picture');
      }
      if (args.value('dirty') === '') throw new UsageError('--dirty: the name of the bitmap is empty');
      const { showChanges } = await import('../map/dirty.js');
      await showChanges(args, server, context);
      return;
    }
    if (picture !== undefined) {
      const { drawPicture } = await import('../map/picture.js');
      await drawPicture(args, contexts, picture, server, context);
      return;
    }
    if (contexts.length > 1) {
      const { showSeveral } = await import('../map/several.js');
      await showSeveral(args, contexts, server, context);
      return;
    }
    const { showMap } = await import('../map/report.js');
    await showMap(args, contexts[0] ?? CONTEXT_BASE_ALLOCATION, server, context);
  },
};
