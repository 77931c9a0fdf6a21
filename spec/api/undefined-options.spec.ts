// An option that is undefined is an option that is left out: for the compiler, with exactOptionalPropertyTypes, and when
// it runs. The options of each interface are read from its type, so that a new one is tried without being listed here.

import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import ts from 'typescript';

import * as sdk from '../../lib/index.js';
import * as serving from '../../lib/server/index.js';
import * as testing from '../../lib/testing/index.js';
import { ROOT } from '../support/root.js';
import { programOf } from '../support/type-check.js';

const ENTRIES = ['lib/index.ts', 'lib/server/index.ts', 'lib/testing/index.ts'];
const program = programOf(ENTRIES);
const checker = program.getTypeChecker();

/** What the entries export, by name. */
const symbols = new Map(
  ENTRIES.flatMap((path) => {
    const source = program.getSourceFile(join(ROOT, path));
    const module = source === undefined ? undefined : checker.getSymbolAtLocation(source);
    return module === undefined ? [] : checker.getExportsOfModule(module);
  }).map((symbol) => [symbol.name, symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol]),
);

/** The optional properties of each exported interface that are not methods. */
const optional = new Map(
  [...symbols]
    .filter(([, { flags }]) => (flags & (ts.SymbolFlags.Interface | ts.SymbolFlags.TypeAlias)) !== 0)
    .filter(([, symbol]) => !checker.getDeclaredTypeOfSymbol(symbol).isUnion())
    .map(([name, symbol]): [string, string[]] => [
      name,
      checker
        .getPropertiesOfType(checker.getDeclaredTypeOfSymbol(symbol))
        .filter(({ flags }) => (flags & ts.SymbolFlags.Optional) !== 0 && (flags & ts.SymbolFlags.Method) === 0)
        .map((property) => property.name),
    ]),
);

/** What callers only get. */
const RESULTS = ['CommandTrace', 'FileDestination', 'FileSource', 'WebSocketEventLike'];

/** The optional properties in a declaration, at any depth, whose type does not include undefined. */
function strict(node: ts.Node): string[] {
  const accepts = (type: ts.TypeNode | undefined): boolean =>
    type === undefined ||
    type.kind === ts.SyntaxKind.UnknownKeyword ||
    (ts.isUnionTypeNode(type) && type.types.some(({ kind }) => kind === ts.SyntaxKind.UndefinedKeyword));
  const found: string[] = [];
  const visit = (at: ts.Node): void => {
    const isOptional = (ts.isPropertySignature(at) || ts.isMappedTypeNode(at)) && at.questionToken !== undefined;
    const isPartial = ts.isTypeReferenceNode(at) && at.typeName.getText() === 'Partial';
    if (isPartial || (isOptional && !accepts(at.type))) {
      const { line } = at.getSourceFile().getLineAndCharacterOfPosition(at.getStart());
      found.push(`${relative(ROOT, at.getSourceFile().fileName)}:${String(line + 1)}: ${at.getText()}`);
    }
    // What a class and a function have inside is their own affair.
    const isPrivate = ts.isPropertyDeclaration(at) && ts.isPrivateIdentifier(at.name);
    if (!ts.isBlock(at) && !isPrivate) ts.forEachChild(at, visit);
  };
  visit(node);
  return found;
}

describe('for the compiler', () => {
  it.each([...symbols].filter(([name]) => name !== 'CommandTrace'))('%s accepts undefined', (_name, symbol) => {
    const declarations = (symbol.declarations ?? []).filter(({ kind }) => kind !== ts.SyntaxKind.VariableDeclaration);
    expect(declarations.flatMap(strict)).toEqual([]);
  });
});

let folder = '';
let image = '';
let server: serving.NbdServer;
let connection: sdk.NbdConnection;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'nbd-undefined-'));
  image = join(folder, 'image');
  await writeFile(image, Buffer.alloc(65_536, 'image'));
  const exports = { '': serving.MemoryBackend.from(Buffer.alloc(65_536, 'export')) };
  server = await new serving.NbdServer({ exports }).listenTcp();
  connection = await sdk.NbdConnection.connect(server.uri(), { metaContexts: ['base:allocation'] });
});

afterAll(async () => {
  await connection.shutdown();
  await server.close();
  await rm(folder, { recursive: true, force: true });
});

const all = async (items: AsyncIterable<unknown>): Promise<unknown[]> => {
  const found = [];
  for await (const item of items) found.push(item);
  return found;
};
/** A result without the time that it took. */
const plain = (result: object): unknown => {
  const { elapsed: _elapsed, ...rest } = result as { elapsed?: number };
  return rest;
};
const facts = (of: sdk.NbdConnection): unknown => ({
  ...{
    size: of.getSize(),
    structured: of.getStructuredRepliesNegotiated(),
    extended: of.getExtendedHeadersNegotiated(),
  },
  ...{ tls: of.getTls(), strict: of.getStrictMode(), flags: of.getHandshakeFlags() },
});

/** Asks a server with these settings for what a client gets. */
async function served(options: serving.NbdServerOptions): Promise<unknown> {
  const own = new serving.NbdServer(options);
  if (options.exports === undefined) own.addExport('', new serving.MemoryBackend(4096));
  await own.listenTcp();
  try {
    await using client = await sdk.NbdConnection.connect(own.uri(), { metaContexts: ['base:allocation'] });
    const can = [
      'canFua',
      'canTrim',
      'canZero',
      'canFastZero',
      'canCache',
      'canMultiConn',
      'canDf',
      'isReadOnly',
    ] as const;
    return [facts(client), can.map((name) => client[name]()), (await client.pread(16, 0)).toString('hex')];
  } finally {
    await own.close();
  }
}

const inServer = (entry: serving.NbdBackend | serving.NbdExportOptions): Promise<unknown> =>
  served({ exports: { '': entry } });

/** What a client gets from a peer with a script. */
async function scripted(script: testing.PeerScript, options?: testing.ListenOptions): Promise<unknown> {
  const peer = await testing.ScriptedPeer.listen(() => script, options);
  try {
    await using client = await sdk.NbdConnection.connect(peer.uri());
    return [facts(client), (await client.pread(16, 0)).toString('hex')];
  } finally {
    await peer.stop();
  }
}

/** What a plan does with the third read. */
async function faulted(fault: object): Promise<unknown> {
  const own = await new serving.NbdServer({ exports: { '': new serving.MemoryBackend(4096) } }).listenTcp();
  try {
    own.faults.push(fault as serving.Fault);
    await using client = await sdk.NbdConnection.connect(own.uri());
    return await client.pread(16, 0).catch((error: unknown) => (error as sdk.NbdError).code);
  } finally {
    await own.close();
  }
}

const EFFECTS = [{ error: 'EIO' }, { delay: 1 }, { cut: 'close' }];

type Call = (options: never) => unknown;
const call = (act: Call): Call => act;

/** For each interface what is done with it: with every option undefined, the result is as without any. */
const CALLS: Readonly<Record<string, Call>> = {
  NbdConnectionOptions: call(async (options: sdk.NbdConnectionOptions) => {
    await using own = await sdk.NbdConnection.connect(server.uri(), options);
    return [facts(own), facts(new sdk.NbdConnection(options))];
  }),
  ConnectOptions: call(async (options: sdk.ConnectOptions) => {
    await using own = await sdk.NbdConnection.connect(server.uri(), options);
    return facts(own);
  }),
  ServeOptions: call(async (options: serving.ServeOptions) => {
    const [near, far] = [new TransformStream<Uint8Array>(), new TransformStream<Uint8Array>()];
    server.serve({ readable: near.readable, writable: far.writable }, options);
    await using own = await sdk.NbdConnection.connect({ readable: far.readable, writable: near.writable });
    return facts(own);
  }),
  NbdTlsOptions: call((options: sdk.NbdTlsOptions) => facts(new sdk.NbdConnection(options))),
  TlsPsk: call((psk: object) => {
    new sdk.NbdConnection({ tlsPsk: { ...psk, key: 'abcd' } });
  }),
  NbdErrorDetails: call((details: object) => Object.entries(new sdk.NbdCommandError('x', { ...details, code: 'EIO' }))),
  ExtentsOptions: call((options: sdk.ExtentsOptions) => all(sdk.extents(connection, options))),
  MergedExtentsOptions: call((options: object) =>
    all(sdk.mergedExtents(connection, { ...options, contexts: ['base:allocation'] })),
  ),
  // There is no bitmap: that is the error, with or without options.
  ChangesOptions: call((options: object) => all(sdk.changes(connection, { ...options, bitmap: 'none' }))),
  TotalsOptions: call((options: object) => sdk.totals(connection, { ...options, contexts: ['base:allocation'] })),
  ContextsOptions: call((options: object) => sdk.totals(connection, { ...options, contexts: ['base:allocation'] })),
  MapOptions: call((options: sdk.MapOptions) => all(sdk.extents(connection, options))),
  NbdCommandOptions: call(async (options: sdk.NbdCommandOptions) =>
    (await connection.pread(16, 0, options)).toString('hex'),
  ),
  PartitionsOptions: call((options: sdk.PartitionsOptions) => sdk.partitions(connection, options)),
  PrefetchOptions: call(async (options: sdk.PrefetchOptions) => plain(await sdk.prefetch(connection, options))),
  CopyOptions: call(async (options: sdk.CopyOptions) =>
    plain((await sdk.copy(connection, sdk.nullDestination(), options)).toJSON()),
  ),
  CopySource: call(async (options: object) => {
    const source = { ...options, size: 512, read: async (buffer: Buffer) => void buffer.fill(1) };
    return plain((await sdk.copy(source, sdk.nullDestination())).toJSON());
  }),
  CopyDestination: call(async (options: object) => {
    const destination = { ...options, size: Infinity, write: async () => undefined };
    return plain((await sdk.copy(connection, destination, { flush: false })).toJSON());
  }),
  FileDestinationOptions: call(async (options: sdk.FileDestinationOptions) => {
    await using destination = await sdk.fileDestination(join(folder, 'new'), { ...options, size: 512, replace: true });
    return destination.size;
  }),
  FileSourceOptions: call(async (options: sdk.FileSourceOptions) => {
    await using source = await sdk.fileSource(image, options);
    return [source.size, typeof source.zeroRuns];
  }),
  ReadStreamOptions: call(async (options: sdk.ReadStreamOptions) =>
    Buffer.concat((await all(sdk.createReadStream(connection, options))) as Buffer[]).toString('hex'),
  ),
  WriteStreamOptions: call(async (options: sdk.WriteStreamOptions) => {
    await using own = await sdk.NbdConnection.connect(server.uri());
    const stream = sdk.createWriteStream(own, options);
    await new Promise((resolve, reject) => stream.on('error', reject).end('export', resolve as () => void));
  }),
  CompareOptions: call(async (options: sdk.CompareOptions) =>
    plain((await sdk.compare(connection, connection, options)).toJSON()),
  ),
  BlockHasherOptions: call((options: sdk.BlockHasherOptions) => new sdk.BlockHasher(options).blockSize),
  BlockHashOptions: call((options: sdk.BlockHashOptions) => sdk.blockHash(connection, options)),
  HashOptions: call((options: sdk.HashOptions) => sdk.hash(connection, options)),
  StatusOptions: call((options: sdk.StatusOptions) => sdk.hash(connection, options)),
  FileCheckpointOptions: call(
    (options: sdk.FileCheckpointOptions) => sdk.fileCheckpoint(join(folder, 'checkpoint'), options).every,
  ),
  CheckpointStore: call(async (options: object) => {
    const checkpoint = { ...options, load: () => null, save: () => undefined };
    return plain((await sdk.copy(connection, sdk.nullDestination(), { checkpoint })).toJSON());
  }),
  NbdPoolOptions: call(async (options: sdk.NbdPoolOptions) => {
    await using pool = await sdk.NbdPool.connect(server.uri(), options);
    return [pool.getSize(), (await pool.pread(16, 0)).toString('hex')];
  }),
  ReconnectOptions: call(async (reconnect: sdk.ReconnectOptions) => {
    await using pool = await sdk.NbdPool.connect(server.uri(), { reconnect });
    return pool.getSize();
  }),
  RetryOptions: call(async (retry: sdk.RetryOptions) => {
    await using pool = await sdk.NbdPool.connect(server.uri(), { retry });
    return pool.getSize();
  }),
  NbdServerOptions: call((options: serving.NbdServerOptions) => served(options)),
  NbdServerTlsOptions: call((options: object) => {
    new serving.NbdServer({ tls: 'require', tlsOptions: { ...options, psk: { alice: Buffer.alloc(16) } } });
  }),
  FlagOverrides: call((flags: serving.FlagOverrides) => inServer({ backend: new serving.MemoryBackend(4096), flags })),
  MetaContext: call((options: object) =>
    inServer({
      backend: new serving.MemoryBackend(4096),
      metaContexts: { 'x:y': { ...options, extents: () => [{ length: 4096, flags: 0 }] } },
    }),
  ),
  NbdExportOptions: call((options: object) => inServer({ ...options, backend: new serving.MemoryBackend(4096) })),
  NbdBackend: call((options: object) => inServer({ ...options, size: 4096, read: (buffer) => void buffer.fill(7) })),
  WriteOptions: call(async (options: object) => {
    const backend = await serving.FileBackend.open(image);
    await backend.write(Buffer.alloc(512), 0, { ...options, fua: false }).finally(() => backend.close());
  }),
  ZeroOptions: call((options: object) => {
    new serving.MemoryBackend(4096).zero(0, 512, { ...options, fua: false, noHole: false, fast: false });
  }),
  MemoryBackendOptions: call((options: serving.MemoryBackendOptions) =>
    inServer(new serving.MemoryBackend(512, options)),
  ),
  FileBackendOptions: call(async (options: serving.FileBackendOptions) =>
    inServer(await serving.FileBackend.open(image, options)),
  ),
  PatternBackendOptions: call((options: serving.PatternBackendOptions) =>
    inServer(new serving.PatternBackend(4096, options)),
  ),
  OverlayBackendOptions: call((options: serving.OverlayBackendOptions) =>
    inServer(new serving.OverlayBackend(new serving.MemoryBackend(4096), options)),
  ),
  RandomBackendOptions: call((options: serving.RandomBackendOptions) =>
    inServer(new serving.RandomBackend(65_536, options)),
  ),
  CorruptFault: call((options: object) => faulted({ ...options, corrupt: 1, nth: 100 })),
  HoldFault: call((options: object) => faulted({ ...options, hold: 'reply', nth: 100 })),
  BytesFault: call((options: object) => faulted({ ...options, afterBytes: 1 << 20, then: 'close' })),
  CutFault: call((options: object) => faulted({ ...options, cut: 'close' })),
  DelayFault: call((options: object) => faulted({ ...options, delay: 1 })),
  ErrorFault: call((options: object) => faulted({ ...options, error: 'EIO' })),
  StallFault: call((options: object) => faulted({ ...options, stall: true, nth: 100 })),
  FaultCondition: call((options: object) => Promise.all(EFFECTS.map((effect) => faulted({ ...options, ...effect })))),
  ChunkFields: call((fields: object) => testing.chunk(1, 0, 1, '', fields).toString('hex')),
  OptionReplyFields: call((fields: object) => testing.optionReply(1, 2, '', fields).toString('hex')),
  PeerScript: call((script: testing.PeerScript) => scripted(script)),
  ListenOptions: call((options: testing.ListenOptions) => scripted({}, options)),
  CommandScript: call((options: object) => scripted({ reply: [{ ...options, steps: testing.close(), command: 2 }] })),
  OptionScript: call((options: object) => scripted({ on: [{ ...options, option: 1, steps: testing.close() }] })),
};

describe('when it runs', () => {
  const interfaces = [...optional].filter(([name, keys]) => keys.length > 0 && !RESULTS.includes(name));

  it('has a call for each interface of options', () => {
    expect(interfaces.map(([name]) => name).sort()).toEqual(Object.keys(CALLS).sort());
  });

  it.each(interfaces)('%s with every option undefined is as without options', async (name, keys) => {
    const act: ((options: never) => unknown) | undefined = CALLS[name];
    const outcome = async (options: object): Promise<unknown> => {
      try {
        return await act?.(options as never);
      } catch (error) {
        return [(error as Error).name, (error as Error).message];
      }
    };
    const withoutAny = await outcome({});
    expect(await outcome(Object.fromEntries(keys.map((key) => [key, undefined])))).toEqual(withoutAny);
    // Only that of changes fails: there is no bitmap.
    if (name !== 'ChangesOptions') expect(withoutAny).not.toEqual(['NbdStrictError', expect.anything()]);
  });

  it('takes undefined in place of every part of a target that has another', async () => {
    const { port } = server.address as { port: number };
    const parts = { path: undefined, command: undefined, socketActivation: undefined, cid: undefined };
    await using own = await sdk.NbdConnection.connect(
      { ...parts, host: '127.0.0.1', port },
      {
        waitFor: 1000,
      },
    );
    expect(own.getSize()).toBe(65_536n);
  });
});
