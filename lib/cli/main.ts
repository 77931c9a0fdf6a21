#!/usr/bin/env node
// The command `nbd`. Everything else is loaded when a command needs it: starting fast is a feature.

import module from 'node:module';
import { useCompileCache } from './compile-cache.js';

useCompileCache((module as { enableCompileCache?: (folder: string) => unknown }).enableCompileCache);

const { run } = await import('./run.js');
await run(process.argv.slice(2), process.argv[1] ?? 'nbd');
