// A worker of a fleet in a process of its own: prints its events, a line of JSON each; SIGTERM ends it in good order.

import { work, type WorkOptions } from '../../../lib/fleet/index.js';

const { redis, options } = JSON.parse(process.argv[2] ?? '{}') as { redis: string; options: WorkOptions };

const print = (event: string, detail: unknown): void => {
  const json = JSON.stringify({ event, detail }, (_key, value: unknown) =>
    typeof value === 'bigint' ? Number(value) : value,
  );
  process.stdout.write(`${json}\n`);
};

const worker = await work(redis, options);
for (const name of ['begin', 'done', 'retry', 'failed', 'lost'] as const) {
  worker.on(name, (detail) => print(name, detail));
}
worker.on('export', (id, state) => print('export', { id, state }));
worker.on('away', (error) => print('away', error.message));
worker.on('back', () => print('back', null));
process.on('SIGTERM', () => void worker.shutdown({ within: 0 }));
print('ready', process.pid);
try {
  print('end', (await worker.done).toJSON());
} catch (error) {
  print('error', { code: (error as { code?: string }).code, message: String(error) });
  process.exitCode = 1;
}
