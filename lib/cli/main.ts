#!/usr/bin/env node
// The command `nbd`. Everything else is loaded when a command needs it: starting fast is a feature.

import { run } from './run.js';

await run(process.argv.slice(2), process.argv[1] ?? 'nbd');
