// The public names, all of them: an export that comes or goes by accident changes this list.

import { describe, expect, it } from '@jest/globals';
import { readFileSync } from 'node:fs';
import { join, posix } from 'node:path';
import ts from 'typescript';

import { ROOT } from '../support/root.js';
import { programOf } from '../support/type-check.js';

interface Names {
  /** Classes, functions and constants. */
  readonly values: readonly string[];
  /** Interfaces and type aliases. */
  readonly types: readonly string[];
}

const words = (text: string): string[] => text.trim().split(/\s+/);

/** What `nbd-sdk/web` has in common with the main entry. */
const SHARED = `
  NbdError NbdStrictError NbdCommandError NbdOptionError NbdProtocolError NbdConnectionError NbdStateError
  NbdQueueFullError NbdUnflushedError Extents NbdConnection
  TLS_DISABLE TLS_ALLOW TLS_REQUIRE SIZE_MINIMUM SIZE_PREFERRED
  SIZE_MAXIMUM SIZE_PAYLOAD CMD_FLAG_FUA CMD_FLAG_NO_HOLE CMD_FLAG_DF
  CMD_FLAG_REQ_ONE CMD_FLAG_FAST_ZERO CMD_FLAG_PAYLOAD_LEN CMD_FLAG_MASK HANDSHAKE_FLAG_FIXED_NEWSTYLE
  HANDSHAKE_FLAG_NO_ZEROES HANDSHAKE_FLAG_MASK STRICT_COMMANDS STRICT_FLAGS STRICT_BOUNDS
  STRICT_ZERO_SIZE STRICT_ALIGN STRICT_PAYLOAD STRICT_AUTO_FLAG STRICT_MASK
  ALLOW_TRANSPORT_TCP ALLOW_TRANSPORT_UNIX ALLOW_TRANSPORT_VSOCK ALLOW_TRANSPORT_SSH ALLOW_TRANSPORT_MASK
  SHUTDOWN_ABANDON_PENDING SHUTDOWN_MASK READ_DATA READ_HOLE READ_ERROR
  NAMESPACE_BASE CONTEXT_BASE_ALLOCATION STATE_HOLE STATE_ZERO NAMESPACE_QEMU
  CONTEXT_QEMU_DIRTY_BITMAP CONTEXT_QEMU_ALLOCATION_DEPTH STATE_DIRTY
`;

const PUBLIC: Readonly<Record<string, Names>> = {
  'nbd-sdk': {
    values: words(`
      BlockHasher Extents NbdConnection NbdPool RateLimiter fileCheckpoint fileDestination fileSource
      blockHash changes compare copy createReadStream createWriteStream exportDestination exportSource extents
      hash mergedExtents nullDestination partitions prefetch totals
      NbdError NbdStrictError NbdCommandError NbdOptionError NbdProtocolError NbdConnectionError NbdStateError
      NbdQueueFullError NbdUnflushedError
      TLS_DISABLE TLS_ALLOW TLS_REQUIRE
      SIZE_MINIMUM SIZE_PREFERRED SIZE_MAXIMUM SIZE_PAYLOAD
      CMD_FLAG_FUA CMD_FLAG_NO_HOLE CMD_FLAG_DF CMD_FLAG_REQ_ONE CMD_FLAG_FAST_ZERO CMD_FLAG_PAYLOAD_LEN CMD_FLAG_MASK
      HANDSHAKE_FLAG_FIXED_NEWSTYLE HANDSHAKE_FLAG_NO_ZEROES HANDSHAKE_FLAG_MASK
      STRICT_COMMANDS STRICT_FLAGS STRICT_BOUNDS STRICT_ZERO_SIZE STRICT_ALIGN STRICT_PAYLOAD STRICT_AUTO_FLAG
      STRICT_MASK
      ALLOW_TRANSPORT_TCP ALLOW_TRANSPORT_UNIX ALLOW_TRANSPORT_VSOCK ALLOW_TRANSPORT_SSH ALLOW_TRANSPORT_MASK
      SHUTDOWN_ABANDON_PENDING SHUTDOWN_MASK
      READ_DATA READ_HOLE READ_ERROR
      NAMESPACE_BASE CONTEXT_BASE_ALLOCATION STATE_HOLE STATE_ZERO
      NAMESPACE_QEMU CONTEXT_QEMU_DIRTY_BITMAP CONTEXT_QEMU_ALLOCATION_DEPTH STATE_DIRTY
    `),
    types: words(`
      BlockHasherOptions BlockHashOptions BlockStatusEntries ByteCount ConnectOptions NbdCommandOptions NbdConnectionBase
      NbdCommandFlags NbdPoolFacts WebSocketClass WebSocketEventLike WebSocketLike WebStreams ChunkCallback ChunkStatus CommandTrace CompareOptions CompareResult
      ByteRange ExportFacts NbdExport NbdPoolEvents NbdPoolOptions PoolAway PoolBack
      PoolLost PoolReconnected PoolRetry PoolStatistics ReconnectOptions RetryOptions
      CompletionCallback ConnectionState Connections ContextCallback DebugCallback CopyDestination CopyOptions CopyResult
      CopySource DestinationLike ExportLike Extent ExtentCallback ExtentsOptions HashOptions ListCallback ListedExport NbdConnectionEvents
      NbdConnectionOptions NbdErrorDetails NbdFacts NbdOptionMode NbdSecuritySettings NbdSettings NbdTarget NbdTlsOptions
      OptionCallback PemInput PrefetchOptions PrefetchResult Progress ProtocolName ReadStreamOptions SourceLike StatusOptions TlsPsk
      Change ChangesOptions ContextsOptions MapOptions MapTotals MergedExtent MergedExtentsOptions TotalsOptions
      CheckpointStore CountOrAuto FileCheckpointOptions FileDestination FileDestinationOptions FileSource FileSourceOptions
      GivenRange Partition PartitionsOptions PartitionTable PrefetchProgress
      WriteStreamOptions ZeroRun
    `),
  },
  'nbd-sdk/server': {
    values: words(
      'BlobBackend ExtentMap FaultPlan FileBackend MemoryBackend NbdServer OverlayBackend PatternBackend RandomBackend fillPattern',
    ),
    types: words(`
      BackendExtent BackendExtents BlobLike NbdServerBase ServeOptions BlockSize BytesFault ChosenFault CommandName CorruptFault CutFault DataPart DelayFault ErrorFault Fault FaultCondition
      FaultedRequest Feature FileBackendOptions FlagOverrides HandshakeFeatures HeldRequest HoldFault MemoryBackendOptions MetaContext
      NamedCommand NbdBackend NbdExportOptions NbdServerAddress NbdServerOptions NbdServerStatistics NbdServerTlsOptions
      OpenExport OpenedExport OpeningClient OptionRefusal OverlayBackendOptions RandomBackendOptions PatternBackendOptions PskKeys RequestFault StallFault U64 WriteOptions ZeroOptions
    `),
  },
  'nbd-sdk/fleet': {
    values: words('FleetWorker cancel pause plan remove report resume retry watch work'),
    types: words(`
      CancelResult FenceReason FleetBackoff FleetConnectOptions FleetEnd FleetExport FleetExportCounts FleetFailure FleetJob FleetKind
      FleetLimits FleetOptions FleetProgress FleetRange FleetRangeCounts FleetRangeDone FleetRangeFailed FleetRangeLost
      FleetRangeRetry FleetReason FleetRedis FleetRedisClient FleetRedisOptions FleetReport FleetServerState
      FleetSnapshot FleetWorkerEvents FleetWorkerState PlanOptions PlanProgress PlanResult ReportOptions RetryResult
      SelectOptions WatchOptions WorkOptions WorkResult
    `),
  },
  'nbd-sdk/testing': {
    values: words(`
      DEFAULT_FLAGS DEFAULT_SIZE ScriptedPeer blockSizeInfo chunk close exportInfo extendedChunk fin greeting
      join metaContext mode oldstyle on optionReply pattern quiet rawplain recv repeat rst seq simpleReply
      sleep stall tls trickle u16 u32 u64 u8
    `),
    types: words(`
      ChunkFields CommandScript ListenOptions OptionReplyFields OptionScript PeerRecording PeerRequest
      PeerScript ReceivedCommand ReceivedOption RecordingMark ReplyMode Script Step Steps U64
    `),
  },
  'nbd-sdk/web': {
    values: words(`${SHARED} BlobBackend MemoryBackend NbdServer PatternBackend`),
    types: words(`
      BlobLike BlockStatusEntries ByteCount ByteRange ChunkCallback ChunkStatus CompletionCallback ConnectOptions
      ConnectionState ContextCallback DebugCallback ExportFacts Extent ExtentCallback ListCallback ListedExport
      MemoryBackendOptions NbdBackend NbdCommandOptions NbdConnectionBase NbdConnectionEvents NbdConnectionOptions NbdErrorDetails NbdExport
      NbdExportOptions NbdFacts NbdOptionMode NbdSecuritySettings NbdServerBase NbdServerOptions NbdServerStatistics NbdSettings
      NbdTlsOptions OptionCallback PatternBackendOptions PemInput ProtocolName ServeOptions TlsPsk WebSocketClass
      WebSocketEventLike WebSocketLike WebStreams
    `),
  },
  'nbd-sdk/web/bulk': {
    values: words(`
      RateLimiter changes compare copy exportDestination exportSource extents mergedExtents nullDestination prefetch totals
    `),
    types: words(`
      Change ChangesOptions CheckpointStore CompareOptions CompareResult Connections ContextsOptions CopyDestination
      CopyOptions CopyResult CopySource CountOrAuto DestinationLike ExportLike ExtentsOptions GivenRange MapOptions MapTotals
      MergedExtent MergedExtentsOptions PrefetchOptions PrefetchProgress PrefetchResult Progress SourceLike StatusOptions
      TotalsOptions ZeroRun
    `),
  },
};

const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { exports: Record<string, unknown> };
const entryPoints = Object.keys(manifest.exports)
  .filter((subpath) => subpath !== './package.json')
  .map((subpath) => posix.join('nbd-sdk', subpath));

/** The names that a module's declarations export, values and types apart. */
function declaredBy(checked: ts.Program, path: string): Names {
  const checker = checked.getTypeChecker();
  const module = checker.getSymbolAtLocation(checked.getSourceFile(join(ROOT, path)) as ts.Node);
  const values: string[] = [];
  const types: string[] = [];
  for (const symbol of module === undefined ? [] : checker.getExportsOfModule(module)) {
    const alias = (symbol.flags & ts.SymbolFlags.Alias) !== 0;
    const isValue = ((alias ? checker.getAliasedSymbol(symbol) : symbol).flags & ts.SymbolFlags.Value) !== 0;
    const isTypeOnly = symbol.declarations?.some((each) => ts.isTypeOnlyExportDeclaration(each)) === true;
    (isValue && !isTypeOnly ? values : types).push(symbol.name);
  }
  return { values: values.sort(), types: types.sort() };
}

const sourceOf = (name: string): string => posix.join('lib', posix.relative('nbd-sdk', name), 'index.ts');

describe('the exports', () => {
  const program = programOf(entryPoints.map(sourceOf), { noLib: true, types: [] });

  it('are listed here for every entry point', () => {
    expect(Object.keys(PUBLIC).sort()).toEqual(entryPoints.sort());
  });

  it.each(entryPoints)('of %s at run time', async (name) => {
    const module = (await import(name)) as object;
    expect(Object.keys(module).sort()).toEqual([...(PUBLIC[name]?.values ?? [])].sort());
  });

  it.each(entryPoints)('of %s to the type checker', (name) => {
    const declared = declaredBy(program, sourceOf(name));
    expect(declared.values).toEqual([...(PUBLIC[name]?.values ?? [])].sort());
    expect(declared.types).toEqual([...(PUBLIC[name]?.types ?? [])].sort());
  });
});
