// What `npm run check` does besides the tests: two lists at the same time, since each step uses one core. The output of
// a step comes in one piece when it is over. Every step of a list is run; the exit code is 1 if any of them failed.

import { spawn } from 'node:child_process';
import { performance } from 'node:perf_hooks';

const LISTS = [
  ['lint'],
  // publint looks at the build.
  ['types', 'build', 'publint', 'knip', 'docs'],
];

const COMMANDS = { publint: ['exec', 'publint', '--', '--strict'], knip: ['exec', 'knip'] };

function run(step) {
  const begun = performance.now();
  return new Promise((resolve) => {
    const child = spawn('npm', COMMANDS[step] ?? ['run', step], { stdio: ['ignore', 'pipe', 'pipe'] });
    const chunks = [];
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => chunks.push(chunk));
    child.on('error', (error) => chunks.push(Buffer.from(`${error.message}\n`)));
    child.on('close', (code) => {
      const seconds = ((performance.now() - begun) / 1000).toFixed(0);
      process.stdout.write(Buffer.concat(chunks));
      process.stdout.write(`${step}: ${code === 0 ? 'passed' : 'FAILED'} in ${seconds} s\n`);
      resolve(code === 0);
    });
  });
}

async function runList(steps) {
  const passed = [];
  for (const step of steps) passed.push(await run(step));
  return passed.every(Boolean);
}

const passed = await Promise.all(LISTS.map(runList));
process.exitCode = passed.every(Boolean) ? 0 : 1;
