// Several pages of one site in a real browser: no two write one log, and what a page leaves behind is sent by another.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';

import { launchBrowser } from '../testing/browser.mjs';
import { Collector } from '../testing/collector.mjs';

let collector;
let browser;
let context;
before(async () => {
  collector = await new Collector().start();
  collector.pages.set('/web.mjs', ['text/javascript', fs.readFileSync(path.join(process.env.SUBWAY_PACKAGE, 'web.mjs'))]);
  collector.pages.set('/', ['text/html', '<!doctype html><meta charset="utf-8"><title>test</title>']);
  collector.pages.set('/other', ['text/html', '<!doctype html><title>other</title>']);
  browser = await launchBrowser(['--host-resolver-rules=MAP shop.test 127.0.0.1']);
});
after(async () => {
  await browser?.close();
  await collector.stop();
});
beforeEach(async () => {
  context = await browser.createBrowserContext();
  collector.stored.clear();
  collector.requests = [];
  collector.faults = [];
});
afterEach(() => context.close());

const loopback = () => collector.url;
/** A name other than localhost makes the page an insecure one: there are no Web Locks, as on every plain http site. */
const insecure = () => collector.url.replace('127.0.0.1', 'shop.test');
const WAYS = [
  ['with Web Locks', loopback, true],
  ['without Web Locks, on plain http', insecure, false],
];

/** Opens a page of the site with the SDK; `server` unlike the site's own is one that does not answer. */
async function open(site, server = site()) {
  const page = await context.newPage();
  page.errors = [];
  page.on('pageerror', (error) => page.errors.push(String(error)));
  await page.goto(site());
  await begin(page, server);
  return page;
}
const begin = (page, server) =>
  page.evaluate(async (server) => {
    window.warnings = [];
    const { default: subway } = await import('/web.mjs');
    window.subway = subway;
    subway.init({ server, key: 'k', onWarning: (text) => warnings.push(text) });
    while (!subway.getDeviceId()) await new Promise((next) => setTimeout(next, 5));
  }, server);
const NOBODY = 'http://127.0.0.1:1';
const track = (page, ...codes) => page.evaluate((codes) => codes.forEach((code) => subway.track(code)), codes);
const flush = (page) => page.evaluate(() => subway.flush());
const install = (page) => page.evaluate(() => subway.getDeviceId());
const codes = () => collector.events().map((event) => event.code).sort();
/** Until the collector has `count` events; a page may look for orphans meanwhile. */
async function arrived(count, page) {
  const end = Date.now() + 20_000;
  while (collector.stored.size < count && Date.now() < end) {
    if (page) await page.evaluate(() => window.dispatchEvent(new Event('online')));
    await new Promise((next) => setTimeout(next, 50));
  }
  assert.equal(collector.stored.size, count, codes().join());
}
/** No install gave one number twice: two pages on one log would. */
function noNumberTwice() {
  const all = collector.events().map((event) => event.install_id + ' ' + event.seq);
  assert.equal(new Set(all).size, all.length);
}

for (const [way, site, locks] of WAYS) {
  describe(way, () => {
    test('pages that are open at once keep logs of their own', async () => {
      const pages = [await open(site), await open(site), await open(site)];
      assert.equal(await pages[0].evaluate(() => 'locks' in navigator && window.isSecureContext), locks);
      assert.equal(new Set(await Promise.all(pages.map(install))).size, 3);
      for (let n = 0; n < 5; n++) for (const page of pages) await track(page, 'e');
      for (const page of pages) assert.equal((await flush(page)).ok, true);
      assert.equal(collector.stored.size, 15);
      noNumberTwice();
      for (const page of pages) assert.deepEqual([page.errors, await page.evaluate(() => warnings)], [[], []]);
    });

    test('pages that start at once do not take one log', async () => {
      const pages = await Promise.all([1, 2, 3, 4].map(() => context.newPage()));
      await Promise.all(pages.map((page) => page.goto(site())));
      await Promise.all(pages.map((page) => begin(page, site())));
      assert.equal(new Set(await Promise.all(pages.map(install))).size, 4);
      await Promise.all(pages.map((page) => track(page, 'e')));
      await Promise.all(pages.map(flush));
      assert.equal(collector.stored.size, 4);
      noNumberTwice();
    });

    test('what closed pages left is sent by the one that stays, and by one that comes', async () => {
      const stays = await open(site);
      const second = await open(site, NOBODY);
      const third = await open(site, NOBODY);
      await track(second, 'second');
      await track(third, 'third', 'third');
      // Persisted, but the collector was not reached.
      assert.equal((await flush(second)).reason, 'no_answer');
      assert.equal((await flush(third)).reason, 'no_answer');
      await second.close();
      await third.close();
      await arrived(3, stays);
      assert.deepEqual(codes(), ['second', 'third', 'third']);
      const fourth = await open(site, NOBODY);
      const fifth = await open(site, NOBODY);
      await track(fourth, 'fourth');
      await track(fifth, 'fifth');
      for (const page of [fourth, fifth]) await flush(page);
      for (const page of [fourth, fifth, stays]) await page.close();
      // One page opens, and adopts all of them.
      const last = await open(site);
      await arrived(5, last);
      assert.deepEqual(codes(), ['fifth', 'fourth', 'second', 'third', 'third']);
      noNumberTwice();
    });

    test('the next page of a tab goes on with the log of the one before, and so does the page before when it comes back', async () => {
      const page = await open(site, NOBODY);
      const id = await install(page);
      await track(page, 'first');
      await page.goto(site() + '/other');
      await begin(page, NOBODY);
      assert.equal(await install(page), id);
      await track(page, 'second');
      await page.goBack();
      // From the back-forward cache, where there is one, else anew.
      if (await page.evaluate(() => !window.subway)) await begin(page, NOBODY);
      await page.waitForFunction(() => subway.getDeviceId() !== '');
      assert.equal(await install(page), id);
      await track(page, 'third');
      await page.reload();
      await begin(page, site());
      assert.equal((await flush(page)).ok, true);
      assert.deepEqual(codes(), ['first', 'second', 'third']);
      noNumberTwice();
    });
  });
}

test('a page that was killed keeps its lease for some minutes; then its log is adopted', async () => {
  const site = insecure;
  const stays = await open(site);
  const killed = await open(site, NOBODY);
  await track(killed, 'left');
  await flush(killed);
  // Killed: no event of the page runs any more.
  const client = await killed.createCDPSession();
  client.send('Page.crash').catch(() => {});
  await stays.evaluate(() => window.dispatchEvent(new Event('online')));
  await new Promise((next) => setTimeout(next, 300));
  assert.equal(collector.stored.size, 0);
  await stays.evaluate(() => {
    for (const key of Object.keys(localStorage)) {
      const [token, at] = localStorage.getItem(key).split(' ');
      if (key === 'subway lease 1') localStorage.setItem(key, token + ' ' + (at - 240_000));
    }
  });
  await arrived(1, stays);
});

test('a page whose lease another has taken, while it was frozen, writes no more into that log', async () => {
  const page = await open(insecure, NOBODY);
  const id = await install(page);
  await track(page, 'mine');
  await page.evaluate(() => localStorage.setItem('subway lease 0', 'somebody-else ' + Date.now()));
  const before = await page.evaluate(() => JSON.stringify(Object.entries(localStorage).filter(([key]) => key.startsWith('subway.'))));
  await page.evaluate(() => document.dispatchEvent(new Event('resume')));
  await page.waitForFunction((id) => subway.getDeviceId() && subway.getDeviceId() !== id, {}, id);
  await track(page, 'elsewhere');
  assert.equal((await flush(page)).reason, 'no_answer');
  assert.equal(await page.evaluate(() => JSON.stringify(Object.entries(localStorage).filter(([key]) => key.startsWith('subway.')))), before);
  assert.match(await page.evaluate(() => Object.entries(localStorage).filter(([key]) => key.startsWith('tab1 ')).join()), /elsewhere/);
});

test('a page too many keeps its events in memory, and says so', async () => {
  const page = await context.newPage();
  await page.goto(loopback());
  await page.evaluate(async () => {
    const held = (slot) => new Promise((next) => navigator.locks.request('subway slot ' + slot, () => (next(), new Promise(() => {}))));
    await Promise.all(Array.from({ length: 16 }, (_, slot) => held(slot)));
  });
  await begin(page, loopback());
  await track(page, 'sent');
  assert.equal((await flush(page)).ok, true);
  assert.deepEqual(await page.evaluate(() => warnings), [
    'the storage does not work (each storage of this site belongs to another page): events are kept in memory until they are sent',
  ]);
  assert.equal(await page.evaluate(() => localStorage.length), 0);
});

test('a page that may not use localStorage sends from memory, after one warning', async () => {
  const page = await context.newPage();
  collector.pages.set('/framed', ['text/html', `<!doctype html><iframe sandbox="allow-scripts" src="/"></iframe>`]);
  await page.goto(loopback() + '/framed');
  const frame = page.frames().find((one) => one !== page.mainFrame());
  const [result, warnings] = await frame.evaluate(async (url) => {
    const code = await (await fetch(url + '/web.mjs')).text();
    const { default: subway } = await import(URL.createObjectURL(new Blob([code], { type: 'text/javascript' })));
    const warnings = [];
    subway.init({ server: url, key: 'k', onWarning: (text) => warnings.push(text) });
    subway.track('framed');
    return [await subway.flush(), warnings];
  }, loopback());
  assert.equal(result.ok, true);
  assert.equal(warnings.length, 1);
  assert.match(warnings[0], /the storage does not work \(.*localStorage/);
});

test('a worker of a page may import it; it does nothing there and says so', async () => {
  const page = await open(loopback);
  const said = await page.evaluate(
    () =>
      new Promise((done) => {
        const code = `import subway from '${location.origin}/web.mjs';
          const warnings = [];
          console.warn = (text) => warnings.push(text);
          subway.init({ server: '${location.origin}', key: 'k' });
          subway.track('a');
          subway.flush().then((result) => postMessage([result.ok, warnings]));`;
        new Worker(URL.createObjectURL(new Blob([code], { type: 'text/javascript' })), { type: 'module' }).onmessage = ({ data }) => done(data);
      })
  );
  assert.deepEqual(said, [false, ['subway: this is no web page (a server, a worker or a test); nothing is recorded']]);
});
