// `nbd list`, which is `nbd info --list`.

import { ParsedArguments } from '../arguments.js';
import type { CliCommand } from '../command.js';
import { CONNECT_OPTIONS, SERVER } from '../server.js';
import { COLOUR_OPTIONS } from '../output/text.js';
import { run } from './info.js';

export const list: CliCommand = {
  spec: {
    name: 'list',
    summary: 'list the exports of a server',
    usage: [`[--json] [--content] [--partitions] ${SERVER}`],
    description: ['The same as nbd info --list. The exit code is 0, or 1 if an export could not be described.'],
    options: [
      ...COLOUR_OPTIONS,
      { names: ['content'], help: 'Open each export and let file(1) guess its content.' },
      { names: ['no-content'], help: 'Do not guess the content. (default)' },
      { names: ['partitions'], yields: true, help: 'Open each export and show its partition table.' },
      { names: ['json'], help: 'Print JSON.' },
      ...CONNECT_OPTIONS,
    ],
    examples: [
      ['nbd list nbd://localhost', 'Every export with its capabilities.'],
      [`nbd list --json nbd://localhost | jq -r '.exports[]["export-name"]'`, 'Only the names.'],
    ],
  },
  run: (args, context) =>
    run(
      new ParsedArguments([...args.options, { name: 'list', spelling: 'list', value: undefined }], args.operands),
      context,
    ),
};
