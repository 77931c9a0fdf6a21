// Records examples/demo.svg: `npm run demo`. The commands are run on a pseudo terminal, against nbdkit with an image that
// sfdisk has partitioned, and what they print is what the picture shows. Needs nbdkit, sfdisk and script (util-linux).

import { spawn } from 'node:child_process';
import { chmod, mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join, resolve } from 'node:path';
import { runTool } from './tools.js';
import { type TerminalOutput, terminalSvg } from './terminal-svg.js';

const ROOT = resolve(import.meta.dirname, '../..');
const COLUMNS = 100;
const MIB = 1024 * 1024;

const COMMANDS = [
  'nbd info --color --partitions $uri | grep -A 5 partitions',
  'nbd map --color --bar --length 64M $uri',
  'nbd copy -p $uri disk.img',
  'nbd compare $uri disk.img',
  'nbd hash --block $uri',
];

/** Milliseconds for typing a command, and before the next one. */
const TYPING = 700;
const PAUSE = 900;

const folder = await mkdtemp(join(tmpdir(), 'nbd-demo-'));
const server = join(folder, 'server.img');
const nbd = join(folder, 'nbd');
try {
  await writeFile(nbd, `#!/bin/sh\nexec '${process.execPath}' '${join(ROOT, 'dist/cli/main.js')}' "$@"\n`);
  await chmod(nbd, 0o755);
  await makeImage();
  const outputs: TerminalOutput[] = [];
  let time = 300;
  for (const command of COMMANDS) {
    outputs.push({ time, text: `\u001b[32m$\u001b[0m \u001b[1m${command}\u001b[0m\r\n` });
    time += TYPING;
    for (const { time: after, text } of await run(command)) outputs.push({ time: time + after, text });
    time = (outputs.at(-1)?.time ?? time) + PAUSE;
  }
  const file = join(ROOT, 'examples/demo.svg');
  await writeFile(file, terminalSvg(outputs, COLUMNS, 'A terminal session with nbd: info, map, copy, compare, hash'));
  process.stdout.write(`${file}\n`);
} finally {
  await rm(folder, { recursive: true, force: true });
}

/** 2 GiB with three partitions, 320 MiB of data. */
async function makeImage(): Promise<void> {
  const handle = await open(server, 'w');
  await handle.truncate(2048 * MIB);
  const data = Buffer.alloc(MIB, 'nbd-sdk');
  for (const [first, count] of [
    [1, 3],
    [32, 9],
    [300, 260],
    [1500, 48],
  ] as const) {
    for (let at = first; at < first + count; at++) await handle.write(data, 0, MIB, at * MIB);
  }
  await handle.close();
  const table =
    'label: gpt\nsize=100MiB, type=uefi, name="boot"\nsize=1GiB, type=linux, name="root"\ntype=linux, name="data"\n';
  const { code, stderr } = await runTool('sfdisk', ['-q', server], { input: table });
  if (code !== 0) throw new Error(stderr);
}

/** Runs a command on a terminal, with the server for it, which is slow enough to see something. */
function run(command: string): Promise<TerminalOutput[]> {
  const inner = join(folder, 'inner.sh');
  const start = [`stty cols ${COLUMNS} rows 24`, 'export uri=nbd+unix:///?socket=nbd.sock', command].join('\n');
  return new Promise((done, reject) => {
    void writeFile(inner, start).then(() => {
      const begin = `nbdkit -f -U nbd.sock --filter=rate file server.img rate=1600M & trap "kill $!" EXIT; while [ ! -S nbd.sock ]; do sleep 0.05; done; script -qec "bash inner.sh" /dev/null; rm -f nbd.sock`;
      const child = spawn('bash', ['-c', begin], {
        cwd: folder,
        stdio: ['ignore', 'pipe', 'inherit'],
        env: {
          ...process.env,
          TERM: 'xterm-256color',
          NO_COLOR: '',
          PATH: `${folder}${delimiter}${process.env['PATH'] ?? ''}`,
        },
      });
      const outputs: TerminalOutput[] = [];
      let first: number | undefined;
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        first ??= performance.now();
        outputs.push({ time: performance.now() - first, text });
      });
      child.on('error', reject);
      child.on('close', (code) => (code === 0 ? done(outputs) : reject(new Error(`${command}: exit code ${code}`))));
    }, reject);
  });
}
