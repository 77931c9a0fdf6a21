#!/usr/bin/env node
// The entry point of the command `nbd`. Other modules are loaded only when a command needs them, for a fast start.

void import('./run.js').then(({ run }) => run(process.argv.slice(2), process.argv[1] ?? 'nbd'));
