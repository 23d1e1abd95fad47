// Bundles the npm package: node build.mjs TOOLS CORE OUT VERSION
// TOOLS holds node_modules, CORE what xtask compiled (subway.wasm, subway.js, subway_bg.js), OUT becomes the package.

import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
const [tools, core, out] = process.argv.slice(2, 5).map((folder) => path.resolve(folder));
const version = process.argv[5];
const require = createRequire(path.join(tools, 'package.json'));
const esbuild = require('esbuild');
const terser = require('terser');

const NAME = 'subway-miniprogram';
const read = (name) => fs.readFileSync(path.join(core, name), 'utf8');

/** Some test environments lack these; importing the package must not throw there. entries/web.js records nothing then. */
const TEXT_CODERS = `const { TextDecoder = class { decode() {} }, TextEncoder = class { encode() {} } } = globalThis;\n`;

/** The glue, with one object that holds what the SDK calls and one that holds what the core imports. */
function glue(twin, old) {
  const text = (old ? '' : TEXT_CODERS) + read('subway_bg.js').replace("'./host.js'", JSON.stringify(path.join(here, 'src/host.js')));
  const names = [...text.matchAll(/^export function (\w+)/gm)].map((match) => match[1]);
  const imports = names.filter((name) => name.startsWith('__wb') && name !== '__wbg_set_wasm');
  // What the module does not export cannot be called: the JavaScript twin lacks some.
  const calls = names.filter((name) => !name.startsWith('__wb') && (!twin || read('subway.js').includes(`export var ${name} `)));
  if (!imports.length || !calls.length || !names.includes('__wbg_set_wasm')) throw new Error('unknown glue: ' + names);
  return `${text.replace(/^export function/gm, 'function')}
export default { ${calls.join(', ')}, bind: __wbg_set_wasm, imports: { ${imports.join(', ')} } };`;
}

/** wasm2js's module as a function of the core's imports. */
function instantiate() {
  const lines = read('subway.js').split('\n');
  const start = lines.findIndex((line) => line.startsWith('var retasmFunc'));
  if (start < 0 || !lines[0].startsWith('import ')) throw new Error('unknown wasm2js output');
  return `${lines.slice(1, start).join('\n')}
export default (imports) => asmFunc({ './subway_bg.js': imports });`;
}

const coreModules = (twin, old) => ({
  name: 'core',
  setup(build) {
    build.onResolve({ filter: /^core:/ }, (args) => ({ path: args.path, namespace: 'core' }));
    build.onLoad({ filter: /.*/, namespace: 'core' }, (args) => {
      if (args.path === 'core:wasm') return { contents: fs.readFileSync(path.join(core, 'subway.wasm')), loader: 'binary' };
      return { contents: args.path === 'core:glue' ? glue(twin, old) : instantiate(), loader: 'js', resolveDir: here };
    });
  },
});

/** Old runtimes: nothing after ES2015, and no TextEncoder of their own. */
const mini = { format: 'cjs', target: 'es2015', inject: [path.join(here, 'src/utf8.js')], platform: 'neutral' };
const BUNDLES = [
  // `twin`: the core is JavaScript.
  { ...mini, entry: 'jd', file: 'jd.js', twin: true },
  { ...mini, entry: 'mini-wasm', file: 'mini.js' },
  { entry: 'web', file: 'web.mjs', format: 'esm', target: 'es2020', platform: 'browser' },
  // For bundlers and test runners that resolve `require` under the condition `browser`.
  { entry: 'web', file: 'web.cjs', format: 'cjs', target: 'es2020', platform: 'browser' },
  { entry: 'node', file: 'node.cjs', format: 'cjs', target: 'node20', platform: 'node' },
  { entry: 'node', file: 'node.mjs', format: 'esm', target: 'node20', platform: 'node' },
];

async function bundle({ entry, file, twin, ...options }) {
  const made = await esbuild.build({
    ...options,
    entryPoints: [path.join(here, 'src/entries', entry + '.js')],
    bundle: true,
    write: false,
    minify: true,
    charset: 'utf8',
    legalComments: 'none',
    logLevel: 'warning',
    define: { SDK_NAME: JSON.stringify(NAME), SDK_VERSION: JSON.stringify(version) },
    plugins: [coreModules(twin, options.platform === 'neutral')],
  });
  const small = await terser.minify(made.outputFiles[0].text, {
    ecma: 2015,
    module: options.format === 'esm',
    compress: { passes: 2, unsafe: false, reduce_funcs: false },
    mangle: { toplevel: true },
    format: { ascii_only: false },
  });
  const names = options.format === 'cjs' ? lexed(exportNames(file.replace(/\.c?js$/, ''))) : '';
  fs.writeFileSync(path.join(out, file), small.code + names);
}

/**
 * What Node.js finds by reading, not running, a CommonJS file: without it `import { init } from` such a file fails. It is
 * written here because minifiers remove it.
 */
const lexed = (names) => `0&&(module.exports={${names.join(',')}});`;

/** The names that an entry's types promise. */
function exportNames(entry) {
  const ts = require('typescript');
  const file = path.join(out, entry + '.d.ts');
  const program = ts.createProgram([file], { module: ts.ModuleKind.NodeNext, types: [] });
  const checker = program.getTypeChecker();
  const symbols = checker.getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(file)));
  const value = (symbol) => (symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol).flags & ts.SymbolFlags.Value;
  return symbols.filter(value).map((symbol) => symbol.name).filter((name) => name !== 'default').sort();
}

fs.rmSync(out, { recursive: true, force: true });
fs.mkdirSync(out, { recursive: true });
/** Types in both kinds, because TypeScript takes the kind of a module from the name of its types. */
const types = fs.readdirSync(path.join(here, 'types')).map((name) => path.join(here, 'types', name));
for (const file of [path.join(here, 'index.d.ts'), ...types]) {
  const name = path.basename(file);
  const text = fs.readFileSync(file, 'utf8');
  fs.writeFileSync(path.join(out, name), text);
  fs.writeFileSync(path.join(out, name.replace('.d.ts', '.d.mts')), text.replaceAll("'./index.js'", "'./index.mjs'"));
}

for (const one of BUNDLES) await bundle(one);
fs.copyFileSync(path.join(core, 'subway.wasm'), path.join(out, 'subway.wasm'));
fs.copyFileSync(path.join(here, 'README.md'), path.join(out, 'README.md'));

/** An entry of `exports`: `types` before what they describe. */
const both = (name) => ({
  import: { types: `./${name}.d.mts`, default: `./${name}.mjs` },
  default: { types: `./${name}.d.ts`, default: `./${name}.cjs` },
});
const common = (name) => ({ types: `./${name}.d.ts`, default: `./${name}.js` });
fs.writeFileSync(
  path.join(out, 'package.json'),
  JSON.stringify(
    {
      name: NAME,
      version,
      description: 'Analytics for mini-programs, web and Node.js that loses no event',
      license: 'MIT OR Apache-2.0',
      // A mini-program's npm support copies the folder that `main` and `miniprogram` name.
      type: 'commonjs',
      main: 'jd.js',
      miniprogram: '.',
      types: 'jd.d.ts',
      exports: {
        '.': { browser: both('web'), node: both('node'), ...common('jd') },
        './jd': common('jd'),
        './mini': common('mini'),
        './web': both('web'),
        './node': both('node'),
        './subway.wasm': './subway.wasm',
        './package.json': './package.json',
      },
      engines: { node: '>=20' },
    },
    null,
    2
  ) + '\n'
);
