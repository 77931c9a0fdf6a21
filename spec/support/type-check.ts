// The type checker as a function: the repository's own settings over files that may exist in memory only.

import { join, relative } from 'node:path';
import ts from 'typescript';

import { ROOT } from './root.js';

/** A program over some files, and the errors of the compiler in exactly those files. */
export interface CheckedProgram {
  readonly program: ts.Program;
  /** `path:line: message` per error in the given files; other files are not checked. */
  readonly errors: readonly string[];
}

/** Files as they are on disk: half of a compiler's time is parsing, of which many programs of one test file share most. */
const parsed = new Map<string, ts.SourceFile | undefined>();

/**
 * Checks files by path from the repository's root. Those with a text need not exist; null reads the file. `relaxed`
 * settings override tsconfig.json's.
 */
export function typeCheck(
  files: ReadonlyMap<string, string | null>,
  relaxed: Readonly<ts.CompilerOptions> = {},
): CheckedProgram {
  const { options, errors: configErrors } = ts.parseJsonConfigFileContent(
    { ...(ts.readConfigFile(join(ROOT, 'tsconfig.json'), ts.sys.readFile).config as object), include: [], files: [] },
    ts.sys,
    ROOT,
  );
  const broken = configErrors.filter(({ code }) => code !== NO_FILES);
  if (broken.length > 0) throw new Error(broken.map((each) => textOf(each)).join('\n'));
  const texts = new Map([...files].map(([path, text]) => [join(ROOT, path), text]));
  const host = ts.createCompilerHost(options);
  const real = {
    fileExists: host.fileExists.bind(host),
    readFile: host.readFile.bind(host),
    getSourceFile: host.getSourceFile.bind(host),
  };
  host.fileExists = (path) => texts.get(path) != null || real.fileExists(path);
  host.readFile = (path) => texts.get(path) ?? real.readFile(path);
  host.getSourceFile = (path, ...how) => {
    if (texts.get(path) != null) return real.getSourceFile(path, ...how);
    if (!parsed.has(path)) parsed.set(path, real.getSourceFile(path, ...how));
    return parsed.get(path);
  };
  const program = ts.createProgram([...texts.keys()], { ...options, ...relaxed }, host);
  const errors = [...texts.keys()].flatMap((path) => {
    const source = program.getSourceFile(path);
    return [...program.getSyntacticDiagnostics(source), ...program.getSemanticDiagnostics(source)].map(textOf);
  });
  return { program, errors };
}

/** "The 'files' list in config file is empty": the files are given to the program instead. */
const NO_FILES = 18002;

function textOf({ file, start, messageText }: ts.Diagnostic): string {
  const message = ts.flattenDiagnosticMessageText(messageText, ' ');
  if (file === undefined || start === undefined) return message;
  const { line } = file.getLineAndCharacterOfPosition(start);
  return `${relative(ROOT, file.fileName)}:${line + 1}: ${message}`;
}
