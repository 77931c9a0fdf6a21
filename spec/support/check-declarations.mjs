// Checks a program as the compiler's command does, but reports errors in the files outside node_modules alone, and
// checks no others: those of @types/node and the declarations of dependencies take most of a compiler's time.
// node spec/support/check-declarations.mjs COMPILER TSCONFIG, with COMPILER a package that has TypeScript's API

import { dirname } from 'node:path';

const [, , compiler = '', config = ''] = process.argv;
const { default: ts } = await import(compiler);

const { config: settings } = ts.readConfigFile(config, ts.sys.readFile);
const { fileNames, options, errors } = ts.parseJsonConfigFileContent(settings, ts.sys, dirname(config));
const program = ts.createProgram(fileNames, options);
const own = program.getSourceFiles().filter(({ fileName }) => !fileName.includes('/node_modules/'));
const found = [
  ...errors,
  ...program.getOptionsDiagnostics(),
  ...program.getGlobalDiagnostics(),
  ...own.flatMap((file) => [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)]),
];
const host = { getCanonicalFileName: (name) => name, getCurrentDirectory: () => process.cwd(), getNewLine: () => '\n' };
if (own.length < 10) throw new Error(`the program has ${own.length} files outside node_modules`);
process.stdout.write(ts.formatDiagnostics(found, host));
