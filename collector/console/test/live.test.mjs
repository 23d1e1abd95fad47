// The live list, and the page as a whole: accessible and within its window at every width, light and dark.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { DESKTOP, PHONE } from './browser.mjs';
import { event } from './collector.mjs';
import { collector, FRESH, onPage, send, sent, SHOP } from './harness.mjs';

test('events appear by themselves, the numbers follow, pause holds them, the filter narrows them', () => onPage({}, async (page, tab) => {
  const install = randomUUID();
  await page.open();
  await page.signIn(FRESH.token);
  await page.waitText('#notice', 'Waiting for the first event');
  const example = await tab.$eval('#notice pre', (node) => node.textContent);
  assert.ok(example.includes(`server: '${collector.base}', key: "fresh"`), example);
  const typings = readFileSync(join(import.meta.dirname, '../../../sdk-wasm/js/index.d.ts'), 'utf8');
  for (const name of ['server: string', 'key: string;', 'init(options: Options)', 'track(code: string']) assert.ok(typings.includes(name), `${name} in the SDK's typings`);
  await page.shot('fresh-desktop');
  await send(FRESH, install, [event(1, 'view', 'live_first', Date.now(), { page: { path: 'pages/live', title: 'Live' }, props: { sku: 'A-1', n: 7 } })]);
  await tab.waitForFunction(() => document.querySelector('.event-code')?.textContent === 'live_first');
  await tab.waitForFunction(() => document.querySelector('.tile[data-metric="pv"] .tile-number').dataset.value === '1');

  await tab.click('.event');
  const shown = JSON.parse(await tab.$eval('.event-details .json', (node) => node.textContent));
  const [read] = (await collector.read(FRESH, 'events?limit=1')).events;
  assert.deepEqual(shown, read);
  assert.deepEqual(shown.props, { sku: 'A-1', n: 7 });

  await tab.click('#live-pause');
  await send(FRESH, install, [event(2, 'click', 'live_second', Date.now())]);
  await collector.delivered(FRESH, sent.fresh);
  await page.pick('intervals', 'week');
  await tab.waitForFunction(() => document.querySelector('.tile[data-metric="events"] .tile-number').dataset.value === '2');
  assert.deepEqual(await page.codes(), ['live_first']);
  await tab.click('#live-pause');
  await tab.waitForFunction(() => document.querySelectorAll('.event').length === 2);
  assert.deepEqual(await page.codes(), ['live_second', 'live_first']);
  assert.equal(await tab.$eval('[data-event] + [data-event] .event', (row) => row.getAttribute('aria-expanded')), 'true', 'what was open stays open');

  await tab.type('#live-code', 'live_first');
  await tab.waitForFunction(() => document.querySelectorAll('.event').length === 1);
  assert.deepEqual(await page.codes(), ['live_first']);
  await tab.type('#live-code', ' is not a code');
  await page.waitText('#live-empty', 'No event with the code');
}));

test('a paused list asks for nothing', () => onPage({}, async (page, tab) => {
  // Every wait of the page is a tenth of a second at most: many rounds go by while this looks.
  await tab.evaluateOnNewDocument(() => {
    const real = globalThis.setTimeout;
    globalThis.setTimeout = (run, wait, ...more) => real(run, Math.min(wait, 100), ...more);
  });
  const asked = (what, since = 0) => page.requests.slice(since).filter((url) => url.includes(what)).length;
  const rounds = async (what, count, since) => {
    while (asked(what, since) < count) await tab.waitForRequest((request) => request.url().includes(what));
  };
  await page.open();
  await page.signIn(SHOP.token);
  await rounds('/shop/events', 3, 0);
  await tab.click('#live-pause');
  assert.equal(await tab.$eval('#live-status', (node) => node.textContent), 'Paused');
  const since = page.requests.length;
  await rounds('/range', 10, since);
  assert.equal(asked('/shop/events', since), 0);
  await tab.click('#live-pause');
  await rounds('/shop/events', 3, since);
}));

for (const scheme of ['light', 'dark']) {
  for (const [width, viewport] of [['desktop', DESKTOP], ['phone', PHONE], ['narrow', { ...PHONE, width: 320 }]]) {
    test(`is accessible and fits the window: ${scheme}, ${width}`, () => onPage({ viewport, scheme }, async (page, tab) => {
      await page.open();
      await page.signIn(SHOP.token);
      await tab.waitForSelector('.event');
      await tab.click('.event');
      assert.deepEqual(await page.accessibilityFaults(), []);
      assert.equal(await page.overflows(), false);
      await page.shot(`shop-open-${width}-${scheme}`);
      await tab.click('.event');
      await page.pick('ranges', 'custom');
      assert.deepEqual(await page.accessibilityFaults(), []);
      assert.equal(await page.overflows(), false);
      await page.shot(`shop-custom-${width}-${scheme}`);
    }));
  }
}
