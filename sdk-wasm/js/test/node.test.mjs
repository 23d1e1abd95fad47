// The Node.js package as an app would use it: import and require, a folder, processes that die.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import { pathToFileURL } from 'node:url';

import { Collector } from '../testing/collector.mjs';
import { Folders, run as runOn } from '../testing/script.mjs';

const PACKAGE = process.env.SUBWAY_PACKAGE;
const require = createRequire(import.meta.url);
const folders = new Folders();
const fresh = () => folders.fresh();
const run = (dir, code) => runOn(collector.url, dir, code);

let collector;
before(async () => (collector = await new Collector().start()));
beforeEach(() => {
  collector.stored.clear();
  collector.requests = [];
});
after(async () => {
  folders.clear();
  await collector.stop();
});

for (const [name, load] of [
  ['import', () => import(pathToFileURL(path.join(PACKAGE, 'node.mjs')).href)],
  ['require', () => require(path.join(PACKAGE, 'node.cjs'))],
]) {
  test(`an event arrives zipped, by ${name}`, async () => {
    const subway = await load();
    const instance = subway.createInstance(fresh());
    instance.init({ server: collector.url, key: 'k', appVersion: '3' });
    const id = instance.track('hello', { a: '京东🚇' });
    const ledger = await instance.flush();
    instance.close();
    assert.deepEqual(ledger, { ok: true, generated: 1, acked: 1, queued: 0, dropped: {} });
    assert.equal(collector.events()[0].id, id);
    assert.deepEqual(collector.events()[0].props, { a: '京东🚇' });
    assert.equal(collector.requests[0].zipped, true);
    assert.equal(collector.requests[0].batch.host.platform, 'node');
  });
}

test('what was tracked before SIGKILL is sent by the next process', async () => {
  const dir = fresh();
  const first = await run(
    dir,
    `init();
     for (let n = 0; n < 500; n++) subway.track('n', { n });
     setTimeout(() => process.kill(process.pid, 'SIGKILL'), 50);
     setInterval(() => {}, 1000);`
  );
  assert.equal(first.signal, 'SIGKILL', first.out);
  const second = await run(dir, `init(); let l; do { l = await subway.flush(); } while (l.queued); console.log(JSON.stringify(l)); subway.close();`);
  assert.deepEqual(JSON.parse(second.out), { ok: true, generated: 500, acked: 500, queued: 0, dropped: {} });
  assert.deepEqual(
    collector.events().map((event) => event.props.n).sort((a, b) => a - b),
    Array.from({ length: 500 }, (_, n) => n)
  );
});

test('a script that only tracks ends by itself, and loses nothing', async () => {
  const dir = fresh();
  const first = await run(dir, `init(); subway.track('short_lived'); subway.close();`);
  assert.deepEqual([first.status, first.out], [0, '']);
  await run(dir, `init(); await subway.flush();`);
  assert.deepEqual(collector.events().map((event) => event.code), ['short_lived']);
});

test('calls before init wait for it, and none throws', async () => {
  const dir = fresh();
  const { out } = await run(
    dir,
    `subway.track('early', { n: 1 });
     const empty = [subway.getDeviceId(), subway.getConsent(), subway.getLedger().generated, (await subway.flush()).generated];
     subway.identify('u1');
     subway.track('second');
     init();
     const ledger = await subway.flush();
     console.log(JSON.stringify([empty, ledger, subway.getDeviceId().length]));
     subway.close();`
  );
  assert.deepEqual(JSON.parse(out), [['', 'unknown', 0, 0], { ok: true, generated: 2, acked: 2, queued: 0, dropped: {} }, 36]);
  assert.deepEqual(collector.events().map((event) => [event.code, event.user_id]), [['early', undefined], ['second', 'u1']]);
  assert.ok(fs.readdirSync(dir).length > 0, 'it is in the folder that init named');
});

test('a missing collector costs nothing but time', async () => {
  const { createInstance } = await import(pathToFileURL(path.join(PACKAGE, 'node.mjs')).href);
  const instance = createInstance(fresh());
  instance.init({ server: 'http://127.0.0.1:1', key: 'k' });
  instance.track('a');
  const ledger = await instance.flush();
  assert.deepEqual(ledger, { ok: false, reason: 'no_answer', generated: 1, acked: 0, queued: 1, dropped: {} });
  instance.close();
});

test('the types accept what the documentation shows and refuse what it forbids', () => {
  const dir = fresh();
  fs.mkdirSync(path.join(dir, 'node_modules'));
  fs.symlinkSync(PACKAGE, path.join(dir, 'node_modules/subway-miniprogram'));
  fs.writeFileSync(
    path.join(dir, 'use.ts'),
    `import { init, track, flush, createInstance, getLedger, type Ledger } from 'subway-miniprogram';
     init({ server: 'https://c.example.com', key: 'k', autoTrack: { pageShow: true }, consentRequired: true });
     const id: string | undefined = track('a', { b: [1, null, { c: 'd' }] }, { theme: 'order', trueTs: 1, page: { path: 'p' } });
     const later: Promise<Ledger & { ok: boolean }> = flush();
     flush((result) => void (result.ok || result.reason === 'no_answer' ? result.acked + 1 : 0));
     init({ server: new URL('https://c.example.com'), key: 'k' });
     createInstance().setConsent(true);
     // @ts-expect-error: a number is no address
     init({ server: 1, key: 'k' });
     // @ts-expect-error: the key is missing
     init({ server: 'x' });
     // @ts-expect-error: no such theme
     track('a', {}, { theme: 'nonsense' });
     // @ts-expect-error: a function is no JSON
     track('a', { f() {} });
     export { id, later, getLedger };`
  );
  const ts = createRequire(path.join(process.env.SUBWAY_TOOLS, 'package.json'))('typescript');
  const program = ts.createProgram([path.join(dir, 'use.ts')], { strict: true, noEmit: true, module: ts.ModuleKind.NodeNext, target: ts.ScriptTarget.ES2022, lib: ['lib.es2022.d.ts', 'lib.dom.d.ts'], types: [] });
  const messages = ts.getPreEmitDiagnostics(program).map((one) => ts.flattenDiagnosticMessageText(one.messageText, '\n'));
  assert.deepEqual(messages, []);
});
