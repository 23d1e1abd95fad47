// How flushes and processes end on Node.js: every flush does, no process is held open, and nothing tracked is lost.

import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';

import { Collector, refusal } from '../testing/collector.mjs';
import { Folders, run, Silence, start } from '../testing/script.mjs';

const NOBODY = 'http://127.0.0.1:1';
const folders = new Folders();
let collector;
before(async () => (collector = await new Collector().start()));
beforeEach(() => {
  collector.stored.clear();
  collector.requests = [];
  collector.faults = [];
});
after(async () => {
  folders.clear();
  await collector.stop();
});
const json = ({ out }) => JSON.parse(out);

/** What the next process on this folder finds and sends. */
async function left(dir) {
  const { out } = await run(collector.url, dir, `init(); const r = await subway.flush(); console.log(JSON.stringify([r.ok, r.generated]));`);
  const [ok, generated] = JSON.parse(out);
  assert.equal(ok, true);
  const codes = collector.events().map((event) => event.code);
  assert.equal(codes.length, generated);
  return codes;
}

describe('a flush', () => {
  const flushed = 'console.log(JSON.stringify(await p))';

  test('ends when what was tracked before it has ended, whatever is tracked meanwhile', async () => {
    const ended = await run(collector.url, folders.fresh(), `init(); subway.track('a'); const p = subway.flush(); subway.track('b'); ${flushed}`);
    assert.equal(ended.status, 0, ended.out);
    assert.equal(json(ended).ok, true);
    assert.ok(json(ended).acked >= 1);
  });

  test('ends again and again while the collector is away, and says why', async () => {
    const ended = await run(
      NOBODY,
      folders.fresh(),
      `init(); subway.track('a'); const all = []; for (let n = 0; n < 3; n++) all.push(await subway.flush()); console.log(JSON.stringify(all))`
    );
    assert.equal(ended.status, 0, ended.out);
    const result = { ok: false, reason: 'no_answer', generated: 1, acked: 0, queued: 1, dropped: {} };
    assert.deepEqual(json(ended), [result, result, result]);
  });

  test('ends while the collector refuses, whatever it says', async () => {
    for (const answer of [[503, { 'retry-after': '100' }, ''], [401, {}, '{}'], [200, {}, '<html>portal</html>'], [404, {}, '']]) {
      collector.faults = Array(3).fill(() => answer);
      const ended = await run(
        collector.url,
        folders.fresh(),
        `init({ onWarning() {} }); subway.track('a'); const [a, b] = [await subway.flush(), await subway.flush()]; console.log(JSON.stringify([a, b].map((r) => [r.ok, r.reason])))`
      );
      assert.equal(ended.status, 0, ended.out);
      assert.deepEqual(json(ended), [[false, 'refused'], [false, 'refused']], String(answer));
    }
  });

  test('goes on while a refused batch is halved', async () => {
    collector.faults = Array.from({ length: 20 }, () => (batch) => (batch.events.some(({ code }) => code === 'bad') ? refusal(400, 'invalid_field') : null));
    const ended = await run(
      collector.url,
      folders.fresh(),
      `init({ onWarning() {} }); for (let n = 0; n < 9; n++) subway.track(n === 5 ? 'bad' : 'good'); const p = subway.flush(); ${flushed}`
    );
    assert.deepEqual(json(ended), { ok: true, generated: 9, acked: 8, queued: 0, dropped: { poison: 1 } });
  });

  test('without consent, before init and after close says so', async () => {
    const ended = await run(
      collector.url,
      folders.fresh(),
      `const all = [await subway.flush()]; init({ consentRequired: true }); subway.track('a'); all.push(await subway.flush());
       subway.close(); all.push(await subway.flush()); console.log(JSON.stringify(all.map((r) => [r.ok, r.reason])))`
    );
    assert.deepEqual(json(ended), [[false, 'not_ready'], [false, 'no_consent'], [false, 'closed']]);
  });

  test('keeps the process alive until it ends, awaited or not', async () => {
    const dir = folders.fresh();
    const ended = await run(collector.url, dir, `init(); subway.track('a'); subway.flush();`);
    assert.deepEqual([ended.status, ended.out], [0, '']);
    assert.deepEqual(collector.events().map(({ code }) => code), ['a']);
  });

  test('in a loop with the collector away does not spin', async () => {
    const ended = await run(
      NOBODY,
      folders.fresh(),
      `init(); subway.track('a'); const end = Date.now() + 1000; let n = 0; while (Date.now() < end) { await subway.flush(); n++; } console.log(n)`
    );
    assert.ok(json(ended) < 50, ended.out);
  });
});

test('a request without an answer holds no process open, and costs no event', async () => {
  const silence = await new Silence().start();
  const dir = folders.fresh();
  const begun = Date.now();
  const ended = await run(
    silence.url,
    dir,
    `init({ flushEvents: 1 }); subway.track('a'); setTimeout(() => {}, 300);`
  );
  await silence.stop();
  assert.deepEqual([ended.status, ended.out], [0, '']);
  assert.ok(Date.now() - begun < 20_000);
  assert.deepEqual(await left(dir), ['a']);
});

describe('what was tracked is on disk when a process ends', () => {
  const ends = [
    ['by itself', '', [0, null]],
    ['by process.exit', `process.exit(3)`, [3, null]],
    ['by an uncaught exception', `throw new Error('the app broke')`, [1, null]],
    ['by a handler of uncaught exceptions', `process.on('uncaughtException', () => process.exit(4)); throw new Error('the app broke')`, [4, null]],
    ['by an unhandled rejection', `Promise.reject(new Error('the app broke')); await new Promise(() => setInterval(() => {}, 1000))`, [1, null]],
    ['with an exit code of its own', `process.exitCode = 7`, [7, null]],
  ];
  for (const [how, code, expected] of ends) {
    for (const more of ['{}', '{ persistDelayMs: 3600000 }']) {
      test(`${how}, with ${more}`, async () => {
        const dir = folders.fresh();
        const { status, signal } = await run(collector.url, dir, `init(${more}); subway.track('x'); ${code}`);
        assert.deepEqual([status, signal], expected);
        assert.deepEqual(await left(dir), ['x']);
      });
    }
  }

  test('also what exit listeners of the app track', async () => {
    const dir = folders.fresh();
    await run(collector.url, dir, `process.on('exit', () => subway.track('early')); init(); process.on('exit', () => subway.track('late'));`);
    assert.deepEqual(await left(dir), ['early', 'late']);
  });

  test('also of a worker thread', async () => {
    const dir = folders.fresh();
    const worker = `const subway = require(${JSON.stringify(process.env.SUBWAY_PACKAGE + '/node.cjs')});
      subway.init({ server: '${collector.url}', key: 'k', storageDir: ${JSON.stringify(dir)} }); subway.track('in_worker'); process.exit(0);`;
    await run(collector.url, dir, `const { Worker } = await import('node:worker_threads'); new Worker(${JSON.stringify(worker)}, { eval: true, execArgv: [] });`);
    assert.deepEqual(await left(dir), ['in_worker']);
  });

  for (const signal of ['SIGTERM', 'SIGINT']) {
    test(`by ${signal}, which still does what it does without us`, async () => {
      const dir = folders.fresh();
      for (const [handler, expected] of [['', [null, signal]], [`process.on('${signal}', () => process.exit(5));`, [5, null]]]) {
        const script = start(NOBODY, dir, `${handler} init(); subway.track('x'); setTimeout(() => console.log('ready'), 50); setInterval(() => {}, 1000);`);
        await script.says;
        script.child.kill(signal);
        const ended = await script.ended;
        assert.deepEqual([ended.status, ended.signal], expected, ended.out);
      }
      assert.deepEqual(await left(dir), ['x', 'x']);
    });
  }
});
