// `nbd map --dirty`: what a dirty bitmap marks as changed, and which of it reads as zeroes.

import { type Change, changes } from '../../bulk/maps/changes.js';
import type { Operand, ParsedArguments } from '../arguments.js';
import type { CommandContext } from '../command.js';
import { CliError } from '../errors.js';
import { percent } from './lines.js';
import { Listing } from './listing.js';
import { supports } from './runs.js';
import { LAST_BLOCK_MAY_BE_SHORT, type Range, rangeOf } from '../range.js';
import { CONTEXT_BASE_ALLOCATION, CONTEXT_QEMU_DIRTY_BITMAP, type NbdConnection } from '../sdk.js';
import { openServer } from '../server.js';
import { choosePaint, COLOURS, general, jsonString, oneDecimal, type Paint } from '../output/text.js';

export async function showChanges(args: ParsedArguments, server: Operand, context: CommandContext): Promise<void> {
  const { connection, bitmap } = await openForBitmap(args.value('dirty'), server, context);
  const range = rangeOf(args, connection.getSize());
  const paint = choosePaint(args.last('color', 'no-color'));
  const isJson = args.has('json');
  const found = changes(connection, { bitmap, ...range, signal: context.signal });
  if (args.has('totals')) {
    let [data, zero] = [0n, 0n];
    for await (const change of found) {
      if (change.zero) zero += change.length;
      else data += change.length;
    }
    await context.out(totalsOf({ data, zero, clean: range.length - data - zero }, range, isJson, paint));
    return;
  }
  const listing = new Listing(context, isJson);
  for await (const change of found) {
    const full = listing.add(isJson ? changeJson(change) : changeText(change, paint));
    if (full !== null) await full;
  }
  await listing.print();
}

/** A connection on which the bitmap was negotiated, by its full name; the only one where none is named. */
async function openForBitmap(
  named: string | undefined,
  server: Operand,
  context: CommandContext,
): Promise<{ readonly connection: NbdConnection; readonly bitmap: string }> {
  const names = named === undefined ? [] : bitmapNames(named);
  const connection = await openServer(server, context, {
    ...LAST_BLOCK_MAY_BE_SHORT,
    metaContexts: [CONTEXT_BASE_ALLOCATION, ...names],
    optMode: named === undefined,
  });
  if (named === undefined) {
    const only = await onlyBitmap(connection, context);
    names.push(only);
    connection.addMetaContext(only);
    await connection.optGo(context.signal);
  }
  const bitmap = names.find((name) => supports(connection, name));
  if (bitmap === undefined) {
    throw new CliError(`--dirty: the server does not have the bitmap ${jsonString(named ?? names[0] ?? '')}`, {
      hint: "'nbd info' shows the contexts that it has",
    });
  }
  return { connection, bitmap };
}

/** The contexts that a name may mean: QEMU's bitmap of this name, which may have a colon, or a full name. */
const bitmapNames = (named: string): string[] =>
  named.includes(':') ? [named, CONTEXT_QEMU_DIRTY_BITMAP + named] : [CONTEXT_QEMU_DIRTY_BITMAP + named];

async function onlyBitmap(connection: NbdConnection, context: CommandContext): Promise<string> {
  if (!connection.aioIsNegotiating()) throw noBitmap();
  const listed = await connection.optListMetaContextQueries([CONTEXT_QEMU_DIRTY_BITMAP], undefined, context.signal);
  const found = listed.filter((name) => name.startsWith(CONTEXT_QEMU_DIRTY_BITMAP));
  const [only] = found;
  if (only === undefined) throw noBitmap();
  if (found.length === 1) return only;
  const short = found.map((name) => jsonString(name.slice(CONTEXT_QEMU_DIRTY_BITMAP.length)));
  throw new CliError(`--dirty: the server has several bitmaps: ${short.join(', ')}`, {
    hint: 'name one: --dirty=NAME',
  });
}

const noBitmap = (): CliError =>
  new CliError('--dirty: the server has no QEMU dirty bitmap', {
    hint: 'qemu-nbd exports one with --bitmap=NAME; a bitmap of another server takes its full name: --dirty=CONTEXT',
  });

const NAMES = { data: COLOURS.red, zero: null, clean: COLOURS.green } as const;
type Kind = keyof typeof NAMES;

function coloured(kind: Kind, columns: string, paint: Paint): string {
  const colour = NAMES[kind];
  return `${paint.begin(colour)}${columns}${kind}${colour === null ? '' : paint.end}\n`;
}

const changeText = ({ offset, length, zero }: Change, paint: Paint): string =>
  coloured(zero ? 'zero' : 'data', `${String(offset).padStart(10)}  ${String(length).padStart(10)}  `, paint);

const changeJson = ({ offset, length, zero }: Change): string =>
  `{ "offset": ${offset}, "length": ${length}, "zero": ${zero} }`;

/** All three kinds, in this order, whether there is any of them or not. */
function totalsOf(bytes: Readonly<Record<Kind, bigint>>, range: Range, isJson: boolean, paint: Paint): string {
  const kinds = Object.keys(NAMES) as Kind[];
  const share = (kind: Kind): number => (range.length === 0n ? 0 : percent(bytes[kind], range.length));
  if (isJson) {
    const each = kinds.map((kind) => `"${kind}": { "size": ${bytes[kind]}, "percent": ${general(share(kind))} }`);
    return `{\n${each.join(',\n')}\n}\n`;
  }
  return kinds
    .map((kind) =>
      coloured(kind, `${String(bytes[kind]).padStart(10)} ${oneDecimal(share(kind)).padStart(5)}% `, paint),
    )
    .join('');
}
