// `npm run fuzz`: the long run. Every family of inputs until its number is reached; the first input that fails is
// printed so that it can be repeated, and the exit code is 1. See spec/reliability.md.

import { parseArgs } from 'node:util';

import { renderSystem, describeSystem } from '../perf/harness/system.js';
import { FAMILIES } from './families.js';
import { describeFailure, fuzz } from './family.js';
import { collectGarbage, countBuffers } from './memory.js';

const USAGE = `npm run fuzz -- [flags]
  --inputs N      inputs of each family (1000000; of whole connections a tenth)
  --seconds S     at most so long for each family
  --seed N        repeats a run (default: from the clock)
  --input N       only this input of the seed; with --only
  --record        writes the transcripts anew, from the servers that are installed
  --only A,B      of ${FAMILIES.map(({ family }) => family.name).join(', ')}
`;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      help: { type: 'boolean', short: 'h' },
      inputs: { type: 'string' },
      seconds: { type: 'string' },
      seed: { type: 'string' },
      input: { type: 'string' },
      only: { type: 'string' },
      record: { type: 'boolean' },
    },
  });
  if (values.help === true) {
    process.stdout.write(USAGE);
    return;
  }
  if (values.record === true) {
    const { recordTranscripts } = await import('./record.js');
    await recordTranscripts();
    return;
  }
  const seed = Number(values.seed ?? Date.now() % 2 ** 31);
  const inputs = values.input === undefined ? Number(values.inputs ?? 1_000_000) : 1;
  const names = values.only?.split(',') ?? FAMILIES.map(({ family }) => family.name);
  const unknown = names.filter((name) => !FAMILIES.some(({ family }) => family.name === name));
  if (unknown.length > 0 || !Number.isSafeInteger(seed) || !(inputs > 0)) {
    process.stderr.write(`${unknown.join(', ')}\n${USAGE}`);
    process.exitCode = 2;
    return;
  }
  process.stdout.write(`${renderSystem(await describeSystem())}seed ${seed}\n`);
  countBuffers();
  for (const { family, share } of FAMILIES.filter(({ family: { name } }) => names.includes(name))) {
    const examples = family.examples(seed);
    const before = await collectGarbage();
    const report = await fuzz(family, examples, {
      seed,
      first: Number(values.input ?? 0),
      inputs: Math.ceil(inputs * (values.input === undefined ? share : 1)),
      ...(values.seconds === undefined ? {} : { time: Number(values.seconds) * 1000 }),
    });
    const grown = ((await collectGarbage()) - before) / 2 ** 20;
    const endings = [...report.endings].sort((a, b) => b[1] - a[1]).map(([name, count]) => `${name} ${count}`);
    process.stdout.write(
      `${family.name}: ${report.inputs} inputs in ${report.seconds.toFixed(1)} s; heap ${grown >= 0 ? '+' : ''}${grown.toFixed(1)} MiB; ${endings.join(', ')}\n`,
    );
    if (report.failure !== null) {
      process.stdout.write(`${describeFailure(report.failure)}\n`);
      process.exitCode = 1;
    }
  }
}

await main();
