// Lint rules. The layering below is the same that spec/api/layers.spec.ts checks; here it speaks in the editor.

import eslint from '@eslint/js';
import { defineConfig } from 'eslint/config';
import tseslint from 'typescript-eslint';

/** What each room of lib/ must not import, as path patterns relative to any file in it. */
const room = (name) => `^\\.{1,2}/(.*/)?${name}/`;
const top = [room('cli'), room('testing'), '^\\.{1,2}/(.*/)?index\\.js$'];
/** The room web/, not transport/web/. */
const web = '^\\.{1,2}/(?!.*transport/)(.*/)?web/';
const built = [room('pool'), room('bulk'), room('fleet'), web];
const halves = [room('client'), room('server')];
const FORBIDDEN = {
  util: [...top, ...built, ...halves, room('transport'), room('protocol')],
  protocol: [...top, ...built, ...halves, room('transport')],
  transport: [...top, ...built, ...halves, room('protocol')],
  client: [room('cli'), room('testing'), ...built, room('server')],
  server: [room('cli'), room('testing'), ...built, room('client')],
  pool: [room('cli'), room('testing'), room('fleet'), web, room('bulk'), room('server')],
  bulk: [room('cli'), room('testing'), room('fleet'), web, room('server')],
  fleet: [room('cli'), room('testing'), room('server'), web],
  web: [room('cli'), room('testing'), room('fleet')],
  cli: [room('testing'), web],
  testing: [room('cli'), web],
};

/** Node modules that compute and do nothing else. */
const PURE_MODULES = '^(?!\\.|node:(buffer|util|url)$)';

const layer = (name, patterns) => ({
  files: name === 'util' ? ['lib/util/**/*.ts', 'lib/errors.ts'] : [`lib/${name}/**/*.ts`],
  rules: {
    'no-restricted-imports': [
      'error',
      {
        patterns: [
          ...patterns.map((regex) => ({ regex, message: `lib/${name} is below or beside this layer.` })),
          ...(name === 'protocol'
            ? [{ regex: PURE_MODULES, message: 'lib/protocol is pure: bytes and meaning.' }]
            : []),
        ],
      },
    ],
  },
});

const STYLE = [
  { selector: 'ExportDefaultDeclaration', message: 'Named exports only.' },
  { selector: 'TSEnumDeclaration', message: 'No enums: a const object or a union.' },
  { selector: 'TSParameterProperty', message: 'No parameter properties.' },
  { selector: 'PropertyDefinition[accessibility="private"]', message: 'Use #private.' },
  { selector: 'MethodDefinition[accessibility="private"][kind!="constructor"]', message: 'Use #private.' },
];

const ASYNC = [
  { selector: 'FunctionDeclaration[async=true]', message: 'lib/protocol is synchronous.' },
  { selector: 'FunctionExpression[async=true]', message: 'lib/protocol is synchronous.' },
  { selector: 'ArrowFunctionExpression[async=true]', message: 'lib/protocol is synchronous.' },
  { selector: 'AwaitExpression', message: 'lib/protocol is synchronous.' },
  { selector: 'TSTypeReference[typeName.name=/^Promise(Like)?$/]', message: 'lib/protocol is synchronous.' },
];
const TIMING_GLOBALS = [
  'Promise',
  'setTimeout',
  'setInterval',
  'setImmediate',
  'queueMicrotask',
  'process',
  'EventTarget',
];

export default defineConfig(
  { ignores: ['dist/', 'coverage/', 'docs/', 'node_modules/'] },
  eslint.configs.recommended,
  tseslint.configs.strictTypeChecked,
  tseslint.configs.stylisticTypeChecked,
  {
    languageOptions: {
      parserOptions: {
        projectService: { allowDefaultProject: ['eslint.config.js', 'spec/support/*.mjs'] },
        tsconfigRootDir: import.meta.dirname,
      },
    },
    linterOptions: { reportUnusedDisableDirectives: 'error' },
    rules: {
      eqeqeq: ['error', 'always', { null: 'ignore' }],
      'no-restricted-syntax': ['error', ...STYLE],
      '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'inline-type-imports' }],
      '@typescript-eslint/explicit-module-boundary-types': 'error',
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      // tsconfig's noPropertyAccessFromIndexSignature is off, and env['X'] says that X may be missing.
      '@typescript-eslint/dot-notation': 'off',
      // `while (true)` around a yield or a read is the plain way to write a protocol loop.
      '@typescript-eslint/no-unnecessary-condition': ['error', { allowConstantLoopConditions: 'always' }],
      // Handlers are often one expression whose value nobody wants.
      '@typescript-eslint/no-confusing-void-expression': [
        'error',
        { ignoreArrowShorthand: true, ignoreVoidReturningFunctions: true },
      ],
      // A completion callback gives `boolean | void`, like libnbd's.
      '@typescript-eslint/no-invalid-void-type': 'off',
      // `!` is forbidden, so where an index is known to be good `as T` has to say so.
      '@typescript-eslint/non-nullable-type-assertion-style': 'off',
      // What a caller's signal or callback gave goes out untouched, whatever it is.
      '@typescript-eslint/only-throw-error': ['error', { allowThrowingUnknown: true, allowThrowingAny: true }],
      '@typescript-eslint/prefer-promise-reject-errors': [
        'error',
        { allowThrowingUnknown: true, allowThrowingAny: true },
      ],
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
    },
  },
  ...Object.entries(FORBIDDEN).map(([name, patterns]) => layer(name, patterns)),
  {
    files: ['lib/protocol/**/*.ts'],
    rules: {
      'no-restricted-syntax': ['error', ...STYLE, ...ASYNC],
      'no-restricted-globals': ['error', ...TIMING_GLOBALS],
    },
  },
  {
    files: ['lib/index.ts'],
    rules: {
      'no-restricted-imports': ['error', { patterns: [room('cli'), room('testing')].map((regex) => ({ regex })) }],
    },
  },
  {
    files: ['lib/**/*.ts'],
    ignores: ['lib/client/connection.ts'],
    rules: { 'max-lines': ['error', { max: 400 }] },
  },
  {
    // An import of types must not load the module: start-up time is made of that.
    files: ['lib/**/*.ts'],
    rules: { '@typescript-eslint/no-import-type-side-effects': 'error' },
  },
  {
    // Specs hand wrong things to the public face on purpose, and a mock need not wait for anything.
    files: ['spec/**/*.ts'],
    rules: {
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/no-empty-function': 'off',
      '@typescript-eslint/require-await': 'off',
      '@typescript-eslint/unbound-method': 'off',
      '@typescript-eslint/only-throw-error': 'off',
      '@typescript-eslint/prefer-promise-reject-errors': 'off',
      '@typescript-eslint/explicit-module-boundary-types': 'off',
      '@typescript-eslint/no-confusing-void-expression': 'off',
      '@typescript-eslint/no-meaningless-void-operator': 'off',
      '@typescript-eslint/no-unsafe-class-instance-assignment': 'off',
      // diagnostics_channel's own methods are documented; the functions in their place lose the channel.
      '@typescript-eslint/no-deprecated': 'off',
      '@typescript-eslint/restrict-template-expressions': [
        'error',
        { allowNumber: true, allowBoolean: true, allowNullish: true },
      ],
    },
  },
  {
    // jest and eslint read the default export of their configuration.
    files: [
      ...['jest.config.ts', 'eslint.config.js'],
      ...['result-reporter', 'longest-first', 'transform', 'plain-environment'].map(
        (name) => `spec/support/${name}.mjs`,
      ),
    ],
    rules: { 'no-restricted-syntax': 'off' },
  },
  {
    files: ['**/*.js', '**/*.mjs'],
    extends: [tseslint.configs.disableTypeChecked],
    languageOptions: { globals: { process: 'readonly', Buffer: 'readonly', console: 'readonly' } },
    rules: { '@typescript-eslint/explicit-module-boundary-types': 'off' },
  },
);
