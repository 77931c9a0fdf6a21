#!/usr/bin/env node
// The command `nbd`. Everything else is loaded when a command needs it: starting fast is a feature.

import module from 'node:module';

// Node 22.8 and later keep compiled code between runs.
(module as { enableCompileCache?: () => void }).enableCompileCache?.();

const { run } = await import('./run.js');
await run(process.argv.slice(2), process.argv[1] ?? 'nbd');
