// The package as npm installs it: what the types promise is there at run time, for every entry under every condition.

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { pathToFileURL } from 'node:url';

import { Folders } from '../testing/script.mjs';

const PACKAGE = process.env.SUBWAY_PACKAGE;
const ts = createRequire(path.join(process.env.SUBWAY_TOOLS, 'package.json'))('typescript');
const manifest = JSON.parse(fs.readFileSync(path.join(PACKAGE, 'package.json'), 'utf8'));
const ENTRIES = Object.keys(manifest.exports).filter((name) => !/\.(json|wasm)$/.test(name));
const CONDITIONS = [['node', 'import'], ['node', 'require'], ['browser', 'import'], ['browser', 'require'], ['browser', 'node', 'import'], ['browser', 'node', 'require'], ['worker', 'import'], ['import'], ['require'], []];

const folders = new Folders();
/** A project that has the package among its modules, as a copy. */
let project;
before(() => {
  project = folders.fresh();
  fs.cpSync(PACKAGE, path.join(project, 'node_modules/subway-miniprogram'), { recursive: true });
});
after(() => folders.clear());

/** What Node.js and bundlers take of an entry of `exports`. */
function resolve(target, conditions) {
  if (typeof target === 'string') return target;
  for (const [name, inner] of Object.entries(target)) {
    const found = name === 'default' || conditions.includes(name) ? resolve(inner, conditions) : undefined;
    if (found) return found;
  }
  return undefined;
}

/** The names and kinds of the values that a file of types promises. */
function promised(file) {
  const program = ts.createProgram([file], { module: ts.ModuleKind.NodeNext, strict: true, types: [] });
  assert.deepEqual(ts.getPreEmitDiagnostics(program).map((one) => ts.flattenDiagnosticMessageText(one.messageText, '\n')), []);
  const checker = program.getTypeChecker();
  const source = program.getSourceFile(file);
  return checker
    .getExportsOfModule(checker.getSymbolAtLocation(source))
    .map((symbol) => (symbol.flags & ts.SymbolFlags.Alias ? [symbol.name, checker.getAliasedSymbol(symbol)] : [symbol.name, symbol]))
    .filter(([, symbol]) => symbol.flags & ts.SymbolFlags.Value)
    .map(([name, symbol]) => {
      const type = checker.getTypeOfSymbolAtLocation(symbol, source);
      return { name, kind: type.getCallSignatures().length ? 'function' : 'object', members: name === 'default' ? type.getProperties().map((one) => one.name) : [] };
    });
}

/** The namespace of a file in a process of its own: each name with its kind, and the members of the default. */
function found(file, kind) {
  const load = kind === 'require' ? `require(${JSON.stringify(file)})` : `await import(${JSON.stringify(pathToFileURL(file).href)})`;
  const code = `const space = ${load}; console.log(JSON.stringify([Object.getOwnPropertyNames(space).map((name) => [name, typeof space[name]]), Object.keys(space.default)]));`;
  const out = execFileSync(process.execPath, kind === 'require' ? ['-e', code] : ['--input-type=module', '-e', code], { encoding: 'utf8', cwd: project });
  const [names, members] = JSON.parse(out);
  return { names: new Map(names), members };
}

test('every value that the types promise is exported, by every entry under every condition', () => {
  const seen = new Map();
  for (const entry of ENTRIES) {
    for (const conditions of CONDITIONS) {
      const what = `${entry} under ${conditions}`;
      const types = resolve(manifest.exports[entry], [...conditions, 'types']);
      const file = resolve(manifest.exports[entry], conditions);
      assert.ok(types && file, what);
      const kind = conditions.includes('require') || !conditions.length ? 'require' : 'import';
      // Where a condition leads to a module of one kind, its types are of that kind.
      assert.equal(/\.mts$/.test(types), /\.mjs$/.test(file), what);
      const key = `${types} ${file} ${kind}`;
      if (seen.has(key)) continue;
      seen.set(key, true);
      const promises = promised(path.join(project, 'node_modules/subway-miniprogram', types));
      const space = found(path.join(project, 'node_modules/subway-miniprogram', file), kind);
      assert.ok(promises.length >= 19, what);
      for (const { name, kind: type, members } of promises) {
        assert.equal(space.names.get(name), type, `${what}: ${name}`);
        for (const member of members) assert.ok(space.members.includes(member), `${what}: default.${member}`);
      }
    }
  }
  assert.ok(seen.size >= 8, `${seen.size} combinations`);
});

const NAMES = 'init, track, flush, createInstance, getLedger, setConsent';

test('named and default imports of every entry run, as Node.js resolves them', () => {
  for (const entry of ENTRIES) {
    const name = 'subway-miniprogram' + entry.slice(1);
    for (const conditions of [[], ['--conditions=browser']]) {
      const imported = `import subway, { ${NAMES} } from '${name}'; if (subway.init !== init || ![${NAMES}].every((one) => typeof one === 'function')) throw new Error('not all');`;
      execFileSync(process.execPath, [...conditions, '--input-type=module', '-e', imported], { cwd: project });
      const required = `const subway = require('${name}'); const { ${NAMES} } = subway; if (![${NAMES}].every((one) => typeof one === 'function')) throw new Error('not all');`;
      execFileSync(process.execPath, [...conditions, '-e', required], { cwd: project });
    }
  }
});

test('the types of every entry are found by every way of resolving modules', () => {
  const { ModuleKind, ModuleResolutionKind: Resolution } = ts;
  const ways = [
    ['mts', { module: ModuleKind.NodeNext }],
    ['cts', { module: ModuleKind.NodeNext, esModuleInterop: true }],
    ['ts', { module: ModuleKind.ESNext, moduleResolution: Resolution.Bundler }],
    ['ts', { module: ModuleKind.ESNext, moduleResolution: Resolution.Bundler, customConditions: ['browser'] }],
    ['ts', { module: ModuleKind.CommonJS, moduleResolution: Resolution.Node10, esModuleInterop: true, ignoreDeprecations: '5.0' }],
  ];
  for (const entry of ENTRIES) {
    for (const [extension, options] of ways) {
      const file = path.join(project, `use.${extension}`);
      fs.writeFileSync(
        file,
        `import subway, { ${NAMES}, type FlushResult, type Options } from 'subway-miniprogram${entry.slice(1)}';
         const options: Options = { server: { href: 'https://c.example.com' }, key: 'k' };
         init(options);
         subway.init(options);
         export const all: Promise<FlushResult>[] = [flush(), subway.flush(), createInstance().flush()];
         track('a', { b: 1 });
         export { getLedger, setConsent };`
      );
      const program = ts.createProgram([file], { strict: true, noEmit: true, target: ts.ScriptTarget.ES2022, lib: ['lib.es2022.d.ts'], types: [], ...options });
      const messages = ts.getPreEmitDiagnostics(program).map((one) => ts.flattenDiagnosticMessageText(one.messageText, '\n'));
      assert.deepEqual(messages, [], `${entry} by ${JSON.stringify(options)}`);
    }
  }
});

test('a server that was bundled into one file somewhere else works', async () => {
  const esbuild = createRequire(path.join(process.env.SUBWAY_TOOLS, 'package.json'))('esbuild');
  for (const format of ['esm', 'cjs']) {
    const outfile = path.join(folders.fresh(), format === 'esm' ? 'server.mjs' : 'server.cjs');
    const contents = `import { init, getDeviceId } from 'subway-miniprogram';
      init({ server: 'http://127.0.0.1:1', key: 'k', storageDir: ${JSON.stringify(folders.fresh())} });
      console.log(getDeviceId().length);`;
    await esbuild.build({ stdin: { contents, resolveDir: project }, bundle: true, platform: 'node', format, outfile, logLevel: 'error' });
    assert.equal(execFileSync(process.execPath, [outfile], { encoding: 'utf8' }).trim(), '36');
  }
});

/** Uses every function of the web package where there is no page; prints how often it warned. */
const USE = `
  const warnings = [];
  console.warn = (text) => warnings.push(text);
  const results = [];
  for (const one of [subway, subway.createInstance()]) {
    one.init({ server: 'https://c.example.com', key: 'k', onWarning: (text) => warnings.push(text) });
    for (const name of Object.keys(one)) if (!/^(createInstance|webAdapter|default)$/.test(name)) one[name]('a');
    results.push(one.track('a'), one.getDeviceId(), one.getLedger().generated);
  }
  const after = (result) => console.log(JSON.stringify([warnings, results, result.ok, result.reason]));
  subway.flush().then(after);`;

test('the web package can be imported where there is no page: calls do nothing and one warning says so', () => {
  const expected = [['subway: this is no web page (a server, a worker or a test); nothing is recorded'], [null, '', 0, null, '', 0], false, 'not_ready'];
  const web = path.join(PACKAGE, 'web.mjs');
  const cjs = path.join(PACKAGE, 'web.cjs');
  const inWorker = `const { Worker } = require('node:worker_threads'); new Worker(${JSON.stringify(`const subway = require(${JSON.stringify(cjs)}); ${USE}`)}, { eval: true });`;
  for (const [what, args] of [
    ['a server', ['--input-type=module', '-e', `import subway from ${JSON.stringify(pathToFileURL(web).href)}; ${USE}`]],
    ['a server, by require', ['-e', `const subway = require(${JSON.stringify(cjs)}); ${USE}`]],
    ['a worker', ['-e', inWorker]],
    ['a server that has a window', ['-e', `globalThis.window = globalThis; const subway = require(${JSON.stringify(cjs)}); ${USE}`]],
  ]) {
    const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 20_000 });
    assert.equal(status, 0, what + stderr);
    const [warnings, ...rest] = JSON.parse(stdout);
    assert.deepEqual(new Set(warnings), new Set(expected[0]), what);
    assert.ok(warnings.length <= 2, 'one for each instance');
    assert.deepEqual(rest, expected.slice(1), what);
  }
});
