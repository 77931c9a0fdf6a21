// What is measured: the rows of the table, and for each the programs that ours is compared with.

export type PeerName = 'libnbd' | 'python' | 'vates' | 'fio' | 'floor' | 'ceiling' | 'baseline' | 'connection';

/**
 * What a row's server holds: the pattern, room to write, nothing but zeroes, or a list of extents, which nbdkit sends
 * one by one and `burst` in one go.
 */
export type ServerKind = 'pattern' | 'scratch' | 'null' | 'extents' | 'burst';

export interface Row {
  readonly id: string;
  readonly op: 'pread' | 'preadInto' | 'pwrite' | 'cache' | 'aioCache' | 'blockStatus';
  readonly size: number;
  readonly depth: number;
  /** Commands on the wire at once, where that is less than the depth. */
  readonly window?: number;
  readonly server: ServerKind;
  readonly transport: 'unix' | 'tcp';
  /** `simple`: the client requests no structured replies; `no-sr`: the server does not support them. */
  readonly replies: 'structured' | 'simple' | 'no-sr';
  readonly tls: boolean;
  /** Commands to run, instead of a time. */
  readonly ops?: number;
  readonly extents?: number;
  /** Through a pool of as many connections; without it, on a connection. */
  readonly pool?: number;
  /** How much longer than others it runs, being slow. */
  readonly longer?: number;
  /** The peers, each with the target ratio (0: no target). */
  readonly peers: Partial<Record<PeerName, number>>;
  /** In which shorter runs it takes part. */
  readonly quick: boolean;
  readonly smoke: boolean;
}

export const KIB = 1024;
export const MIB = 1024 * KIB;

/** Bytes of the exports that data is read from and written to. */
export const IMAGE = 64 * MIB;
/** Bytes of each extent of the block status rows: a million of them still fit into one command. */
export const EXTENT = 4 * KIB;

const DEFAULTS = {
  transport: 'unix',
  replies: 'structured',
  tls: false,
  quick: false,
  smoke: false,
} as const;

const OP_SERVERS: Record<Row['op'], ServerKind> = {
  pread: 'pattern',
  preadInto: 'pattern',
  pwrite: 'scratch',
  cache: 'null',
  aioCache: 'null',
  blockStatus: 'extents',
};

function sizeName(size: number): string {
  return size >= MIB ? `${size / MIB}m` : `${size / KIB}k`;
}

type Details = Partial<Omit<Row, 'id' | 'op' | 'size' | 'depth'>> & { readonly name?: string };

function row(op: Row['op'], size: number, depth: number, peers: Row['peers'], details: Details = {}): Row {
  const { name, ...rest } = details;
  const id = [op, sizeName(size), `d${depth}`, ...(name === undefined ? [] : [name])].join('-').toLowerCase();
  return { ...DEFAULTS, id, op, size, depth, server: OP_SERVERS[op], peers, ...rest };
}

const always = { quick: true } as const;

function small(): Row[] {
  return [
    row('pread', 4 * KIB, 1, { libnbd: 0.95 }),
    row('pread', 4 * KIB, 16, { libnbd: 1.8 }, { quick: true, smoke: true }),
    row('pread', 4 * KIB, 64, { libnbd: 1.8, floor: 0.75, python: 3, fio: 0 }, always),
    row('pread', 4 * KIB, 16, { libnbd: 1.8 }, { name: 'simple', replies: 'simple' }),
    row('pread', 4 * KIB, 64, { libnbd: 1.8, floor: 0.75 }, { name: 'simple', replies: 'simple' }),
    row('pread', 4 * KIB, 64, { libnbd: 1.8 }, { name: 'no-sr', replies: 'no-sr' }),
    row('pread', 4 * KIB, 64, { libnbd: 1.8, vates: 8 }, { name: 'tcp', transport: 'tcp' }),
    row('pread', 4 * KIB, 1024, { libnbd: 1.3 }, { name: 'w64', window: 64 }),
    row('pwrite', 4 * KIB, 1, { libnbd: 0.95 }),
    row('pwrite', 4 * KIB, 16, { libnbd: 1.5 }, { smoke: true }),
    row('pwrite', 4 * KIB, 64, { libnbd: 1.5, python: 0, fio: 0 }, always),
    row('cache', 4 * KIB, 1, { libnbd: 0.95 }),
    row('cache', 4 * KIB, 16, { libnbd: 2.5 }, { quick: true, smoke: true }),
    row('cache', 4 * KIB, 64, { libnbd: 1.3, floor: 0.75, python: 0 }, always),
    row('aioCache', 4 * KIB, 16, { libnbd: 0 }),
    row('aioCache', 4 * KIB, 64, { libnbd: 0, floor: 0 }),
  ];
}

function large(): Row[] {
  return [
    row('pread', 64 * KIB, 16, { libnbd: 0, vates: 0 }, { name: 'tcp', transport: 'tcp' }),
    row('pread', 64 * KIB, 16, { libnbd: 0 }),
    row('pread', 256 * KIB, 16, { libnbd: 1.2, floor: 0, python: 0, fio: 0 }, always),
    row('pread', 256 * KIB, 16, { libnbd: 0 }, { name: 'tcp', transport: 'tcp' }),
    row('pread', MIB, 16, { libnbd: 1.2, floor: 0 }),
    row('preadInto', MIB, 16, { libnbd: 1.2, floor: 0 }, always),
    row('pwrite', 64 * KIB, 16, { libnbd: 0 }),
    row('pwrite', 256 * KIB, 16, { libnbd: 1.2, fio: 0 }, always),
    row('pwrite', MIB, 16, { libnbd: 1.2 }),
  ];
}

function special(): Row[] {
  return [
    row('pread', 4 * KIB, 64, { libnbd: 0 }, { name: 'tls', transport: 'tcp', tls: true }),
    row('pread', 256 * KIB, 16, { libnbd: 1 }, { name: 'tls', transport: 'tcp', tls: true }),
    row('pwrite', 256 * KIB, 16, { libnbd: 1 }, { name: 'tls', transport: 'tcp', tls: true }),
    row('blockStatus', EXTENT, 1, { libnbd: 0, python: 0 }, { name: '100k', extents: 100_000, longer: 3 }),
    row('blockStatus', EXTENT, 1, { libnbd: 0 }, { name: '100k-burst', extents: 100_000, server: 'burst' }),
    row('pread', 4 * KIB, 64, { libnbd: 0 }, { name: 'million', ops: 1_000_000 }),
    row('cache', 4 * KIB, 64, { libnbd: 0 }, { name: 'million', ops: 1_000_000 }),
  ];
}

/** What a pool costs beside one connection, and what a second connection brings. */
function pools(): Row[] {
  const one = { name: 'pool', pool: 1 } as const;
  return [
    row('cache', 4 * KIB, 64, { connection: 0 }, one),
    row('pread', 4 * KIB, 64, { connection: 0.95 }, { ...one, quick: true }),
    row('pwrite', 4 * KIB, 64, { connection: 0.95 }, one),
    row('pread', 256 * KIB, 16, { connection: 0.95 }, one),
    row('pwrite', 256 * KIB, 16, { connection: 1.2 }, { name: 'pool-2', pool: 2, quick: true }),
  ];
}

/** All rows, in the order of the table. */
export const ROWS: readonly Row[] = [...small(), ...large(), ...special(), ...pools()];
