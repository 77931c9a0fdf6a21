// Run as a process of its own: connects to a server of the spec in one way after the other, ends each connection in
// its own way, and prints what it left behind. It must end by itself.

import { NbdConnection, type NbdConnectionOptions } from '../../../../lib/index.js';

const [path = '', scenario = ''] = process.argv.slice(2);

const say = (text: string): void => {
  console.log(text);
};
const connect = (options: NbdConnectionOptions = {}): Promise<NbdConnection> =>
  NbdConnection.connect({ path }, { requestExtendedHeaders: false, ...options });
const codeOf = (error: unknown): string => (error as { code?: string }).code ?? String(error);
const rejected = async (promise: Promise<unknown>): Promise<string> => {
  try {
    await promise;
    return 'resolved';
  } catch (error) {
    return codeOf(error);
  }
};
const closed = (connection: NbdConnection): Promise<unknown> =>
  new Promise((resolve) => connection.once('close', resolve));

// The export name chooses what the server does.
const SCENARIOS: Readonly<Record<string, () => Promise<string>>> = {
  close: async () => {
    const connection = await connect();
    connection.close();
    return connection.connectionState();
  },
  'close with commands in flight': async () => {
    const connection = await connect({ exportName: 'silent', requestTimeout: 60_000 });
    const pending = Promise.all([rejected(connection.pread(512, 0)), rejected(connection.flush())]);
    const signal = new AbortController().signal;
    const watched = rejected(connection.cache(512, 0, 0, signal));
    connection.aioCache(512, 0);
    await new Promise((resolve) => setImmediate(resolve));
    connection.close();
    return [...(await pending), await watched].join();
  },
  shutdown: async () => {
    await using connection = await connect();
    await connection.cache(512, 0);
    return connection.connectionState();
  },
  'shutdown of a silent server': async () => {
    const connection = await connect({ exportName: 'silent', closeTimeout: 30 });
    const pending = rejected(connection.flush());
    await connection.shutdown();
    return pending;
  },
  'death with commands in flight': async () => {
    const connection = await connect({ exportName: 'garbage', maxInFlight: 1 });
    return (await Promise.all([1, 2, 3].map(() => rejected(connection.flush())))).join();
  },
  'death while idle, without a listener': async () => {
    const connection = await connect({ exportName: 'leave' });
    while (!connection.aioIsClosed()) await new Promise((resolve) => setTimeout(resolve, 5));
    return connection.connectionState();
  },
  'death with raw commands that are never retired': async () => {
    const connection = await connect({ exportName: 'garbage' });
    connection.aioCache(512, 0);
    return codeOf(await closed(connection));
  },
  requestTimeout: async () => {
    const connection = await connect({ exportName: 'silent', requestTimeout: 30 });
    return rejected(connection.flush());
  },
  connectTimeout: () => rejected(connect({ exportName: 'no greeting', connectTimeout: 30 })),
  'abort of connect': async () => {
    const controller = new AbortController();
    const connecting = rejected(
      NbdConnection.connect({ path }, { exportName: 'no greeting', signal: controller.signal }),
    );
    setTimeout(() => {
      controller.abort({ code: 'mine' });
    }, 20);
    return connecting;
  },
  'abort of a command': async () => {
    const connection = await connect({ exportName: 'silent' });
    const aborted = await rejected(connection.pread(1 << 20, 0, 0, AbortSignal.timeout(20)));
    connection.close();
    return aborted;
  },
  'no server there': () => rejected(NbdConnection.connect({ path: `${path}.not` })),
  'a port without a listener': () => rejected(NbdConnection.connect({ host: '127.0.0.1', port: 1 })),
  'an unknown export': () => rejected(connect({ exportName: 'unknown' })),
};

/** Sockets and timers, without what the process has for itself. */
const resources = (): string[] =>
  process.getActiveResourcesInfo().filter((name) => /Pipe|TCP|Timeout|GetAddr/.test(name));

async function leaveNothing(): Promise<void> {
  await connect().then((connection) => {
    connection.close();
  });
  await new Promise((resolve) => setTimeout(resolve, 20));
  // The first use of a standard stream opens it.
  void [process.stdout, process.stderr];
  const before = resources().sort().join();
  for (const [name, run] of Object.entries(SCENARIOS)) {
    const outcome = await run();
    // A socket is gone a turn or more after it was destroyed.
    let after = '';
    for (let turn = 0; turn < 100_000 && after !== before; turn++) {
      await new Promise((resolve) => setImmediate(resolve));
      after = resources().sort().join();
    }
    say(`${name}: ${outcome}${after === before ? '' : `, left ${after} (before ${before})`}`);
  }
}

async function idle(unref: boolean): Promise<void> {
  const connection = await connect();
  if (unref) connection.unref();
  say(connection.connectionState());
}

async function pending(): Promise<void> {
  const connection = await connect({ exportName: 'slow' });
  connection.unref();
  await connection.cache(512, 0);
  say('answered');
}

async function refAgain(): Promise<void> {
  const connection = await connect();
  connection.unref().ref();
  say(connection.connectionState());
}

switch (scenario) {
  case 'idle':
    await idle(false);
    break;
  case 'unref':
    await idle(true);
    break;
  case 'ref':
    await refAgain();
    break;
  case 'pending':
    await pending();
    break;
  default:
    await leaveNothing();
}
