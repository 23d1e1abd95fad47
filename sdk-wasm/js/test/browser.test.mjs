// Both kinds of core in a real browser, with memory that grows: its engine detaches nothing that wasm2js replaces.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, beforeEach, test } from 'node:test';

import { launchBrowser } from '../testing/browser.mjs';
import { Collector } from '../testing/collector.mjs';

let collector;
let browser;
before(async () => {
  collector = await new Collector().start();
  for (const file of ['jd.js', 'web.mjs']) {
    collector.pages.set('/' + file, ['text/javascript', fs.readFileSync(path.join(process.env.SUBWAY_PACKAGE, file))]);
  }
  collector.pages.set('/', ['text/html', '<!doctype html><meta charset="utf-8"><title>test</title>']);
  browser = await launchBrowser();
});
after(async () => {
  await browser?.close();
  await collector.stop();
});
beforeEach(() => {
  collector.stored.clear();
  collector.requests = [];
});

async function open() {
  const page = await browser.newPage();
  const errors = [];
  page.on('pageerror', (error) => errors.push(String(error)));
  await page.goto(collector.url);
  return { page, errors };
}

/** In the page: tracks events of about 30 KB, 6 MB in all, and waits until all are acknowledged. */
const track = async (subway) => {
  for (let n = 0; n < 200; n++) subway.track('big', { n, text: `${n} 京东🚇é `.repeat(900) });
  let ledger;
  do ledger = await subway.flush();
  while (ledger.queued);
  return ledger;
};

function check(ledger) {
  assert.deepEqual(ledger, { ok: true, generated: 200, acked: 200, queued: 0, dropped: {} });
  assert.equal(collector.stored.size, 200);
  collector.events().forEach(({ props: { n, text } }) => assert.equal(text, `${n} 京东🚇é `.repeat(900)));
}

test('the JavaScript core survives growing memory in Chromium', async () => {
  const { page, errors } = await open();
  const ledger = await page.evaluate(async (work) => {
    const kept = new Map();
    window.jd = {
      getStorageSync: (key) => kept.get(key) || '',
      setStorageSync: (key, value) => kept.set(key, value),
      removeStorageSync: (key) => kept.delete(key),
      getStorageInfoSync: () => ({ keys: [...kept.keys()] }),
      getSystemInfoSync: () => ({}),
      request: ({ url, header, data, success, fail }) =>
        fetch(url, { method: 'POST', headers: header, body: data }).then(async (answer) => success({ statusCode: answer.status, header: {}, data: await answer.text() }), fail),
    };
    const code = await (await fetch('/jd.js')).text();
    const module = { exports: {} };
    new Function('module', 'exports', code)(module, module.exports);
    const subway = module.exports;
    subway.init({ server: location.origin, key: 'k', queueBytes: 64 << 20 });
    return eval(`(${work})`)(subway);
  }, track.toString());
  check(ledger);
  assert.deepEqual(errors, []);
  await page.close();
});

test('the web package sends zipped, without a preflight, and a new page goes on where the last ended', async () => {
  const { page, errors } = await open();
  const start = async (queueBytes) => {
    const { default: subway } = await import('/web.mjs');
    window.subway = subway;
    subway.init({ server: location.origin, key: 'k', queueBytes });
    while (!subway.getDeviceId()) await new Promise((next) => setTimeout(next, 5));
    return subway.getDeviceId();
  };
  const install = await page.evaluate(start);
  assert.match(install, /^[0-9a-f-]{36}$/);
  // Small enough for a browser's storage: in turns, each acknowledged before the next.
  for (let turn = 0; turn < 10; turn++) {
    const ledger = await page.evaluate(async (turn) => {
      for (let n = turn * 20; n < turn * 20 + 20; n++) subway.track('big', { n, text: `${n} 京东🚇é `.repeat(900) });
      let ledger;
      do ledger = await subway.flush();
      while (ledger.queued);
      return ledger;
    }, turn);
    if (turn === 9) check(ledger);
    else assert.equal(ledger.acked, turn * 20 + 20);
  }
  assert.ok(collector.requests.every((request) => request.zipped && request.url.endsWith('?key=k')));
  const kept = await page.evaluate(async () => {
    subway.track('before_reload');
    await new Promise((next) => setTimeout(next, 20));
    return Object.values(localStorage).join();
  });
  assert.match(kept, /before_reload/);
  await page.reload();
  assert.equal(await page.evaluate(start), install);
  await page.evaluate(() => subway.flush());
  assert.equal(collector.events().at(-1).code, 'before_reload');
  assert.deepEqual(errors, []);
  await page.close();
});


test('pages whose collector is blocked leave most of the storage to their site', async () => {
  const pages = [];
  for (let number = 0; number < 16; number++) {
    const { page } = await open();
    pages.push(page);
    await page.evaluate(async () => {
      const { default: subway } = await import('/web.mjs');
      subway.init({ server: 'http://127.0.0.1:9', key: 'k' });
      while (!subway.getDeviceId()) await new Promise((next) => setTimeout(next, 5));
      for (let n = 0; n < 1500; n++) subway.track('blocked', { n, text: 'x'.repeat(500) });
      await subway.flush();
    });
  }
  const [slots, characters] = await pages[0].evaluate(() => {
    const keys = Object.keys(localStorage);
    const slots = new Set(keys.map((key) => /^tab\d+/.exec(key)?.[0] ?? ''));
    return [slots.size, keys.reduce((sum, key) => sum + key.length + localStorage.getItem(key).length, 0)];
  });
  assert.equal(slots, 16);
  assert.ok(characters > 1_000_000 && characters < 2_600_000, `${characters} characters`);
  for (const page of pages) {
    await page.evaluate(() => localStorage.clear());
    await page.close();
  }
});
