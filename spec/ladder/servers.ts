// The servers that the ladder stands against: the embedded one, and the real ones that this machine has. Each serves
// the same image three times: writable on a Unix socket, read-only on TCP, with TLS on TCP.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { type NbdConnectionOptions } from '../../lib/index.js';
import { ExtentMap, MemoryBackend, NbdServer, type NbdServerOptions } from '../../lib/server/index.js';
import { type Certificates } from '../support/certificates.js';
import { type RealServer, startNbdkit, startNbdServer, startQemuNbd } from '../support/real-servers.js';
import { startTrixieQemuNbd, whyNoTrixie } from '../support/trixie.js';
import { DATA, DESCRIPTION, EXPORT, makeImage, pattern, SIZE } from './image.js';

export interface TcpPlace {
  readonly host: string;
  readonly port: number;
  readonly uri: string;
}

export interface LadderServer {
  /** Path and URI of the writable export's Unix socket. */
  readonly path: string;
  readonly uri: string;
  readonly readOnly: TcpPlace;
  /** Where clients must use TLS; or why that could not be started, in the server's words. */
  readonly secure: TcpPlace | { readonly no: string };
  /** What a client needs for TLS. */
  readonly credentials: NbdConnectionOptions;
  /** Certificates of another authority, which signed nothing here. */
  readonly strangers: string;
  /** True if the writable export's server had died since the last call; it is there again. */
  revived(): Promise<boolean>;
  stop(): Promise<void>;
}

export interface Column {
  readonly name: string;
  /** The programs that it takes. */
  readonly needs: readonly string[];
  /** Why it is not here although it may be missing; null otherwise. */
  readonly missing: string | null;
  /** The embedded server has every rung, so that no rung can return `no` everywhere. */
  readonly isComplete?: boolean;
  readonly start: (certificates: Certificates | null) => Promise<LadderServer>;
}

type Kind = 'writable' | 'readOnly' | 'secure';
type Start = (
  kind: Kind,
  transport: 'unix' | 'tcp',
  folder: string | undefined,
  image: string,
  socketPath?: string,
) => Promise<RealServer>;

const nbdkit: Start = (kind, transport, folder, image, socketPath) =>
  startNbdkit({
    plugin: 'file',
    args: [`file=${image}`],
    transport,
    ...(socketPath === undefined ? {} : { socketPath }),
    options: kind === 'readOnly' ? ['-r'] : [],
    ...(folder === undefined ? {} : { tls: { folder } }),
  });

const QEMU = { exportName: EXPORT, description: DESCRIPTION };
const qemuArguments = (kind: Kind): string[] => ['--allocation-depth', ...(kind === 'readOnly' ? ['--read-only'] : [])];

const qemuNbd: Start = (kind, transport, folder, image) =>
  startQemuNbd({
    ...QEMU,
    transport,
    file: image,
    args: ['--discard=unmap', '--detect-zeroes=off', ...qemuArguments(kind)],
    ...(folder === undefined ? {} : { tls: { folder } }),
  });

const qemuNbd10: Start = (kind, transport, folder) =>
  startTrixieQemuNbd({
    ...QEMU,
    transport,
    makeImage,
    args: ['--discard=unmap', ...qemuArguments(kind)],
    ...(folder === undefined ? {} : { tls: { folder } }),
  });

const nbdServer: Start = (kind, transport, folder, image) => {
  const settings = { exportname: image, readonly: kind === 'readOnly' };
  return startNbdServer({
    transport,
    exports: { [EXPORT]: { ...settings, flush: true, fua: true, trim: true, rotational: true } },
    ...(folder === undefined ? {} : { tls: { folder } }),
  });
};

export const COLUMNS: readonly Column[] = [
  { name: 'embedded', needs: [], missing: null, isComplete: true, start: startEmbedded },
  { name: 'nbdkit', needs: ['nbdkit'], missing: null, start: real(nbdkit, 'SIGABRT') },
  { name: 'qemu-nbd', needs: ['qemu-nbd'], missing: null, start: real(qemuNbd) },
  { name: 'qemu-nbd 10', needs: [], missing: whyNoTrixie(), start: real(qemuNbd10) },
  { name: 'nbd-server', needs: ['nbd-server'], missing: null, start: real(nbdServer) },
];

const credentialsOf = (certificates: Certificates | null): NbdConnectionOptions =>
  certificates === null ? {} : { ca: certificates.ca, ...certificates.client };

const NO_OPENSSL = { no: 'no openssl here to make certificates with' };

/**
 * A real server. One that is known to end itself with the signal `fatal` comes back where it was: nbdkit 1.32 aborts
 * now and then ("Assertion `sock >= 0' failed") when a client leaves between its replies, which rungs do on purpose.
 */
function real(start: Start, fatal?: NodeJS.Signals): Column['start'] {
  return async (certificates) => {
    const folder = await mkdtemp(join(tmpdir(), 'nbd-ladder-'));
    // Each has an image of its own: qemu-nbd locks what it serves.
    const images = { writable: join(folder, 'a'), readOnly: join(folder, 'b'), secure: join(folder, 'c') };
    await Promise.all(Object.values(images).map(makeImage));
    const [writable, readOnly, secure] = await Promise.all([
      start('writable', 'unix', undefined, images.writable),
      start('readOnly', 'tcp', undefined, images.readOnly),
      certificates === null ? NO_OPENSSL : start('secure', 'tcp', certificates.folder, images.secure).catch(withoutTls),
    ]);
    const running = [writable, readOnly, ...('no' in secure ? [] : [secure])];
    const path = writable.socketPath ?? '';
    let current = writable;
    return {
      path,
      uri: writable.uri(EXPORT),
      readOnly: placeOf(readOnly),
      secure: 'no' in secure ? secure : placeOf(secure),
      credentials: credentialsOf(certificates),
      strangers: certificates?.strangerFolder ?? '',
      revived: async () => {
        if (fatal === undefined || (await current.endedBy(100)) !== fatal) return false;
        process.stdout.write(`${current.name} ended with ${fatal}: ${current.log().trim().split('\n').at(-1) ?? ''}\n`);
        await rm(path, { force: true });
        current = await start('writable', 'unix', undefined, images.writable, path);
        running.push(current);
        return true;
      },
      stop: async () => {
        await Promise.all(running.map((server) => server.stop()));
        await rm(folder, { recursive: true, force: true });
      },
    };
  };
}

/** The message of a server that was built without TLS; any other failure to start is a failure. */
function withoutTls(error: unknown): { no: string } {
  const said = String(error);
  if (!/not (support|compiled|built)|without TLS/i.test(said)) throw error;
  return { no: said };
}

function placeOf(server: RealServer): TcpPlace {
  return { host: server.host ?? '', port: server.port ?? 0, uri: server.uri(EXPORT) };
}

async function startEmbedded(certificates: Certificates | null): Promise<LadderServer> {
  const folder = await mkdtemp(join(tmpdir(), 'nbd-ladder-'));
  const make = (readOnly: boolean, options: NbdServerOptions = {}): NbdServer => {
    const backend = new MemoryBackend(SIZE);
    backend.write(pattern(0, DATA), 0);
    const dirty = new ExtentMap(SIZE);
    dirty.set(4096, 8192, 1);
    const metaContexts = { 'qemu:dirty-bitmap:b0': dirty };
    const exports = {
      [EXPORT]: { backend, readOnly, description: DESCRIPTION, metaContexts, flags: { rotational: true } },
    };
    return new NbdServer({ closeTimeout: 500, ...options, exports });
  };
  const [writable, readOnly] = [make(false), make(true)];
  const path = join(folder, 'socket');
  await Promise.all([writable.listenUnix(path), readOnly.listenTcp()]);
  const secure = certificates === null ? null : make(false, { tls: 'require', tlsOptions: { ...certificates.server } });
  await secure?.listenTcp();
  const place = (server: NbdServer): TcpPlace => {
    const { address } = server;
    if (address === null || !('port' in address)) throw new Error('it does not listen on TCP');
    return { ...address, uri: server.uri(EXPORT) };
  };
  return {
    path,
    uri: writable.uri(EXPORT),
    readOnly: place(readOnly),
    secure: secure === null ? NO_OPENSSL : place(secure),
    credentials: credentialsOf(certificates),
    strangers: certificates?.strangerFolder ?? '',
    revived: () => Promise.resolve(false),
    stop: async () => {
      await Promise.all([writable.close(), readOnly.close(), secure?.close()]);
      await rm(folder, { recursive: true, force: true });
    },
  };
}
