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

/** The glue, with one object that holds what the SDK calls and one that holds what the core imports. */
function glue(twin) {
  const text = read('subway_bg.js').replace("'./host.js'", JSON.stringify(path.join(here, 'src/host.js')));
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

const coreModules = (twin) => ({
  name: 'core',
  setup(build) {
    build.onResolve({ filter: /^core:/ }, (args) => ({ path: args.path, namespace: 'core' }));
    build.onLoad({ filter: /.*/, namespace: 'core' }, (args) => {
      if (args.path === 'core:wasm') return { contents: fs.readFileSync(path.join(core, 'subway.wasm')), loader: 'binary' };
      return { contents: args.path === 'core:glue' ? glue(twin) : instantiate(), loader: 'js', resolveDir: here };
    });
  },
});

/** Old runtimes: nothing after ES2015, and no TextEncoder of their own. */
const mini = { format: 'cjs', target: 'es2015', inject: [path.join(here, 'src/utf8.js')], platform: 'neutral' };
const BUNDLES = [
  { ...mini, entry: 'jd', file: 'jd.js' },
  { ...mini, entry: 'mini-wasm', file: 'mini.js' },
  { entry: 'web', file: 'web.mjs', format: 'esm', target: 'es2020', platform: 'browser' },
  { entry: 'node', file: 'node.cjs', format: 'cjs', target: 'node20', platform: 'node', define: { PACKAGE_FOLDER: '__dirname' } },
  {
    entry: 'node',
    file: 'node.mjs',
    format: 'esm',
    target: 'node20',
    platform: 'node',
    banner: {
      js: "import{fileURLToPath as _f}from'node:url';import{dirname as _d}from'node:path';const PACKAGE_FOLDER=_d(_f(import.meta.url));",
    },
  },
];

async function bundle({ entry, file, define, ...options }) {
  const made = await esbuild.build({
    ...options,
    entryPoints: [path.join(here, 'src/entries', entry + '.js')],
    bundle: true,
    write: false,
    minify: true,
    charset: 'utf8',
    legalComments: 'none',
    logLevel: 'warning',
    define: { SDK_NAME: JSON.stringify(NAME), SDK_VERSION: JSON.stringify(version), ...define },
    plugins: [coreModules(entry === 'jd')],
  });
  const small = await terser.minify(made.outputFiles[0].text, {
    ecma: 2015,
    module: options.format === 'esm',
    compress: { passes: 2, unsafe: false, reduce_funcs: false },
    mangle: { toplevel: true },
    format: { ascii_only: false },
  });
  fs.writeFileSync(path.join(out, file), small.code);
}

fs.rmSync(out, { recursive: true, force: true });
fs.mkdirSync(out, { recursive: true });
for (const one of BUNDLES) await bundle(one);
fs.copyFileSync(path.join(core, 'subway.wasm'), path.join(out, 'subway.wasm'));
for (const file of ['index.d.ts', 'README.md']) fs.copyFileSync(path.join(here, file), path.join(out, file));
fs.writeFileSync(
  path.join(out, 'package.json'),
  JSON.stringify(
    {
      name: NAME,
      version,
      description: 'Analytics for mini-programs, web and Node.js that loses no event',
      license: 'MIT OR Apache-2.0',
      // A mini-program's npm support copies the folder that `main` and `miniprogram` name.
      main: 'jd.js',
      miniprogram: '.',
      types: 'index.d.ts',
      exports: {
        '.': {
          types: './index.d.ts',
          browser: './web.mjs',
          node: { import: './node.mjs', require: './node.cjs' },
          default: './jd.js',
        },
        './jd': { types: './index.d.ts', default: './jd.js' },
        './mini': { types: './index.d.ts', default: './mini.js' },
        './web': { types: './index.d.ts', default: './web.mjs' },
        './node': { types: './index.d.ts', import: './node.mjs', require: './node.cjs' },
        './subway.wasm': './subway.wasm',
        './package.json': './package.json',
      },
      engines: { node: '>=20' },
    },
    null,
    2
  ) + '\n'
);
