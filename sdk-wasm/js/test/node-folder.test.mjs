// A folder belongs to one instance at a time, whoever else asks for it, by whatever name.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';

import { Collector } from '../testing/collector.mjs';
import { Folders, run, start } from '../testing/script.mjs';

const PACKAGE = process.env.SUBWAY_PACKAGE;
const folders = new Folders();
let collector;
let esm;
before(async () => {
  collector = await new Collector().start();
  esm = await import(pathToFileURL(path.join(PACKAGE, 'node.mjs')).href);
});
after(async () => {
  folders.clear();
  await collector.stop();
});

/** Opens an instance on `dir`; gives it and its warnings. */
function open(dir, { createInstance } = esm) {
  const warnings = [];
  const instance = createInstance(dir);
  instance.init({ server: collector.url, key: 'k', onWarning: (text) => warnings.push(text) });
  return { instance, warnings };
}
const admitted = ({ instance }) => instance.getDeviceId() !== '';

test('a second instance in this process is refused and told why, by whatever name it asks', async () => {
  const dir = folders.fresh();
  const link = path.join(folders.fresh(), 'link');
  fs.symlinkSync(dir, link);
  const first = open(dir);
  assert.ok(admitted(first));
  const cjs = createRequire(import.meta.url)(path.join(PACKAGE, 'node.cjs'));
  for (const [name, build] of [[dir, esm], [dir, cjs], [dir + '/', esm], [link, esm], [path.relative(process.cwd(), dir), esm], [dir + '/../' + path.basename(dir), cjs]]) {
    const second = open(name, build);
    assert.ok(!admitted(second), name);
    assert.deepEqual(second.warnings, [`the storage folder ${name} is in use by another instance of this process; give each instance a storageDir of its own`]);
    assert.equal((await second.instance.flush()).reason, 'not_ready');
    second.instance.close();
  }
  first.instance.track('a');
  assert.equal((await first.instance.flush()).ok, true);
  first.instance.close();
  const next = open(link);
  assert.ok(admitted(next), 'a closed instance gives its folder back');
  assert.equal(next.instance.getLedger().generated, 1);
  next.instance.close();
});

test('a worker thread is refused what another thread has, and has it afterwards', async () => {
  const dir = folders.fresh();
  const first = open(dir);
  const inWorker = () =>
    new Promise((done, fail) => {
      const code = `const { parentPort } = require('node:worker_threads');
        const instance = require(${JSON.stringify(path.join(PACKAGE, 'node.cjs'))}).createInstance(${JSON.stringify(dir)});
        instance.init({ server: 'http://127.0.0.1:1', key: 'k', onWarning() {} });
        parentPort.postMessage(instance.getDeviceId());
        process.exit(0);`;
      new Worker(code, { eval: true }).on('message', done).on('error', fail);
    });
  assert.equal(await inWorker(), '');
  const install = first.instance.getDeviceId();
  first.instance.close();
  assert.equal(await inWorker(), install);
});

test('of many processes that start at once, one is admitted', async () => {
  const dir = folders.fresh();
  const code = `init({ onWarning() {} }); console.log(subway.getDeviceId() ? 'admitted' : 'refused'); setInterval(() => {}, 1000);`;
  const all = Array.from({ length: 8 }, () => start(collector.url, dir, code));
  await Promise.all(all.map(({ says }) => says));
  all.forEach(({ child }) => child.kill('SIGKILL'));
  const outs = (await Promise.all(all.map(({ ended }) => ended))).map(({ out }) => out.trim());
  assert.deepEqual(outs.sort(), ['admitted', ...Array(7).fill('refused')]);
  const next = open(dir);
  assert.ok(admitted(next), 'the claim of a killed process is void at once');
  next.instance.close();
});

test('a process waits for its predecessor and goes on where it ended', async () => {
  const dir = folders.fresh();
  const first = open(dir);
  first.instance.track('a');
  const second = start(
    collector.url,
    dir,
    `init(); subway.track('b'); while (!subway.getDeviceId()) await new Promise((next) => setTimeout(next, 50)); console.log(JSON.stringify(await subway.flush()));`
  );
  await second.says;
  first.instance.close();
  const { out } = await second.ended;
  assert.match(out, /is in use by process \d+; give each/);
  assert.equal(out.match(/in use/g).length, 1, 'it says so once');
  assert.equal(JSON.parse(out.slice(out.indexOf('{'))).acked, 2);
});

test('whose claim is void, and whose is not', () => {
  const now = Date.now() / 1000;
  const host = os.hostname();
  const cases = [
    ['a process that is gone', `t\n${0x3ffffffe}\n0\n${host}`, now, true],
    ['an earlier process with our number, as in a container', `t\n${process.pid}\n-99999\n${host}`, now, true],
    ['a process that lives', `t\n${process.ppid}\n0\n${host}`, now, false],
    ['a number that another process has by now', `t\n${process.ppid}\n0\n${host}`, now - 3600, true],
    ['another machine that lives', `t\n${process.pid}\n0\nelsewhere`, now, false],
    ['another machine that was silent for an hour', `t\n${process.pid}\n0\nelsewhere`, now - 3600, true],
    ['nobody', '', now - 3600, true],
  ];
  for (const [what, text, seen, expected] of cases) {
    const dir = folders.fresh();
    const claim = path.join(dir, 'in-use');
    fs.writeFileSync(claim, text);
    fs.utimesSync(claim, seen, seen);
    const one = open(dir);
    assert.equal(admitted(one), expected, what);
    one.instance.close();
    assert.equal(fs.existsSync(claim), !expected, what);
    assert.deepEqual(fs.readdirSync(dir).filter((name) => name.startsWith('in-use.')), []);
  }
});

test('an instance that was taken for dead writes no more', () => {
  const dir = folders.fresh();
  const storage = esm.folderStorage(dir);
  storage.set('a', '1');
  const long = Date.now() / 1000 - 3600;
  fs.utimesSync(path.join(dir, 'in-use'), long, long);
  const other = esm.folderStorage(dir);
  other.set('a', '2');
  assert.throws(() => storage.set('a', '3'), /in use by another instance/);
  assert.throws(() => storage.remove('a'), /in use by another instance/);
  storage.release();
  assert.equal(other.get('a'), '2');
  other.release();
});

test('a folder that cannot be used costs one warning; what is tracked is sent from memory', async () => {
  const dir = folders.fresh();
  const file = path.join(dir, 'file');
  fs.writeFileSync(file, '');
  const { out, status } = await run(collector.url, file, `init(); subway.track('a'); console.log(JSON.stringify(await subway.flush())); subway.track('b'); await subway.flush();`);
  assert.equal(status, 0, out);
  assert.match(out, /the storage does not work \(EEXIST.*\): events are kept in memory until they are sent/);
  assert.match(out, /"ok":true,"generated":1,"acked":1/);
  assert.equal(out.match(/subway:/g).length, 1, out);
});

/** What `work` finds on a disk that is full: files can be made, and nothing written into them. */
async function onFullDisk(code, work) {
  const { writeFileSync } = fs;
  fs.writeFileSync = (name, text, options) => {
    fs.closeSync(fs.openSync(name, (options && options.flag) || 'w'));
    throw Object.assign(new Error(`${code}: no space left on device, write`), { code });
  };
  try {
    return await work();
  } finally {
    fs.writeFileSync = writeFileSync;
  }
}

/** Leaves an event in `dir` that is not sent; gives the install ID. */
async function leaveOne(dir) {
  const first = esm.createInstance(dir);
  first.init({ server: 'http://127.0.0.1:1', key: 'k', onWarning() {} });
  first.track('left');
  const install = first.getDeviceId();
  first.close();
  return install;
}

for (const code of ['ENOSPC', 'EDQUOT']) {
  test(`a full disk (${code}) keeps nothing from being sent, and the folder belongs to one all the same`, async () => {
    const dir = folders.fresh();
    const install = await leaveOne(dir);
    const kept = fs.readdirSync(dir);
    await onFullDisk(code, async () => {
      const one = open(dir);
      assert.equal(one.instance.getDeviceId(), install);
      const other = open(dir);
      assert.ok(!admitted(other));
      assert.match(other.warnings[0], /is in use by somebody who had no room to say who;/);
      other.instance.close();
      one.instance.track('now');
      const result = await one.instance.flush();
      assert.deepEqual([result.ok, result.acked], [true, 2], JSON.stringify(result));
      assert.ok(!one.warnings.join().includes('the storage does not work'), one.warnings.join());
      one.instance.close();
    });
    const left = fs.readdirSync(dir).filter((name) => !kept.includes(name) && !name.endsWith('.txt'));
    assert.deepEqual(left, [], 'neither claims nor drafts');
    const next = open(dir);
    assert.equal(next.instance.getDeviceId(), install);
    next.instance.close();
  });
}

test('what killed processes left of their claims and drafts goes with the next claim', () => {
  const dir = folders.fresh();
  for (const name of ['in-use.0d4c', 'in-use.0d4c.old', 'subway.k.7.txt.draft']) fs.writeFileSync(path.join(dir, name), '');
  const one = open(dir);
  assert.deepEqual(fs.readdirSync(dir).filter((name) => name.startsWith('in-use.') || name.endsWith('.draft')), []);
  one.instance.close();
});

test('an instance whose claim was removed reads its folder anew and goes on', async () => {
  const dir = folders.fresh();
  const one = open(dir);
  one.instance.track('a');
  assert.equal((await one.instance.flush()).ok, true);
  const install = one.instance.getDeviceId();
  fs.rmSync(path.join(dir, 'in-use'));
  one.instance.track('b');
  // The write that finds out.
  await new Promise((next) => setTimeout(next, 1500));
  one.instance.track('c');
  assert.equal((await one.instance.flush()).ok, true);
  assert.equal(one.instance.getDeviceId(), install);
  assert.ok(fs.existsSync(path.join(dir, 'in-use')));
  one.instance.close();
  const next = open(dir);
  assert.ok(next.instance.getLedger().acked >= 2, JSON.stringify(next.instance.getLedger()));
  next.instance.close();
});

test('an instance that was taken for dead comes back when the other one ends', async () => {
  const dir = folders.fresh();
  const one = open(dir);
  one.instance.track('a');
  assert.equal((await one.instance.flush()).ok, true);
  const long = Date.now() / 1000 - 3600;
  fs.utimesSync(path.join(dir, 'in-use'), long, long);
  const other = open(dir);
  assert.ok(admitted(other));
  one.instance.track('b');
  await new Promise((next) => setTimeout(next, 1500));
  assert.ok(!admitted(one), 'it waits');
  assert.ok(one.warnings.some((text) => /is in use by another instance/.test(text)), one.warnings.join());
  one.instance.track('c');
  other.instance.track('d');
  assert.equal((await other.instance.flush()).ok, true);
  other.instance.close();
  await new Promise((next) => setTimeout(next, 6000));
  assert.ok(admitted(one));
  assert.equal((await one.instance.flush()).ok, true);
  one.instance.close();
  const next = open(dir);
  assert.ok(next.instance.getLedger().acked >= 3, JSON.stringify(next.instance.getLedger()));
  next.instance.close();
});

test('a text that a power cut left empty or full of zeros costs what was in it and nothing else', async () => {
  for (const damage of ['', '\0', '\0'.repeat(4096)]) {
    const dir = folders.fresh();
    const install = await leaveOne(dir);
    const second = esm.createInstance(dir);
    second.init({ server: 'http://127.0.0.1:1', key: 'k', onWarning() {} });
    // Larger than what is merged, so that the first segment stays.
    for (let n = 0; n < 40; n++) second.track('large', { text: 'x'.repeat(2000) });
    second.close();
    const texts = fs.readdirSync(dir).filter((name) => /\d\.txt$/.test(name));
    assert.ok(texts.length > 0);
    const newest = texts.sort((a, b) => parseInt(a.match(/(\d+)\.txt/)[1]) - parseInt(b.match(/(\d+)\.txt/)[1])).pop();
    fs.writeFileSync(path.join(dir, newest.replace(/\d+\.txt$/, '99.txt')), damage);
    fs.writeFileSync(path.join(dir, '%zz.txt'), 'not ours');
    const one = open(dir);
    assert.deepEqual(one.warnings, [], JSON.stringify(damage));
    assert.equal(one.instance.getDeviceId(), install);
    one.instance.track('after');
    assert.equal((await one.instance.flush()).ok, true);
    one.instance.close();
    const next = open(dir);
    assert.equal(next.instance.getDeviceId(), install);
    assert.equal(next.instance.getLedger().queued, 0);
    next.instance.close();
  }
});
