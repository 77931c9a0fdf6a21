#!/usr/bin/env node
// The entry point of the command `nbd`. Other modules are loaded only when a command needs them, for a fast start.

import module from 'node:module';
import { useCompileCache } from './compile-cache.js';

useCompileCache((module as { enableCompileCache?: (folder: string) => unknown }).enableCompileCache);

const { run } = await import('./run.js');
await run(process.argv.slice(2), process.argv[1] ?? 'nbd');
