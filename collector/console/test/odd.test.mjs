// What is odd and happens: clocks that were wrong by decades, zones that a browser does not know, values that JavaScript cannot hold.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { DESKTOP, PHONE } from './browser.mjs';
import { event } from './collector.mjs';
import { farHistory } from './data.mjs';
import { assertCharts, collector, FAR, FRESH, MAY, onPage, send, sent, SHOP } from './harness.mjs';

const far = farHistory(Date.now());
const all = far.views.length + far.strays.length;

let filled = null;
/** Sends the far-apart events, once for all tests. */
function fill() {
  filled ??= send(FAR, far.install, [...far.views, ...far.strays]).then(() => collector.delivered(FAR, sent.far));
  return filled;
}

for (const [width, viewport] of [['desktop', DESKTOP], ['phone', PHONE]]) {
  test(`one event of 1970 and one of next year do not hide the others, ${width}`, () => onPage({ viewport }, async (page, tab) => {
    await fill();
    await page.open();
    await page.signIn(FAR.token);
    assert.deepEqual(await page.view(), { app: 'far', range: 'custom', from: '2015-05-17', to: '2015-05-19', interval: 'hour' });
    await page.waitText('#notice', `2 of ${all} events lie outside of these dates`);
    await assertCharts(page, FAR, MAY, 'hour');
    assert.equal((await page.tiles()).events, far.views.length);
    assert.equal(await page.overflows(), false);
    await page.shot(`far-open-${width}`);

    await tab.click('#notice button');
    await page.waitText('#range-title', '1970');
    await page.settled();
    const { range, interval } = await page.view();
    assert.deepEqual({ range, interval }, { range: 'all', interval: 'year' });
    assert.equal((await page.tiles()).events, all, 'all data is all data');
    const rows = await page.table('pv');
    assert.ok(rows.length > 50 && rows.length < 100, `${rows.length} years`);
    assert.deepEqual(rows.filter(([, value]) => value > 0).map(([, value]) => value), [1, 200, 1]);
    assert.equal(await tab.$eval('#intervals input[value="hour"]', (input) => input.disabled), true);
    await page.waitText('#notice', 'Nearly all events are from 17–19 May 2015');
    assert.deepEqual(await page.accessibilityFaults(), []);
    assert.equal(await page.overflows(), false);
    await page.shot(`far-all-${width}`);
    for (const wanted of ['month', 'year']) {
      await page.pick('intervals', wanted);
      assert.equal((await page.view()).interval, wanted);
    }
    await tab.click('#notice button');
    await page.waitText('#range-title', '17–19 May 2015');
    await page.settled();
    await assertCharts(page, FAR, MAY, 'hour');
  }));
}

test('a zone that the browser does not know is said, and the page works', () => onPage({ viewport: PHONE }, async (page, tab) => {
  await tab.evaluateOnNewDocument(() => {
    const Real = Intl.DateTimeFormat;
    Intl.DateTimeFormat = function DateTimeFormat(locale, options = {}) {
      if (options.timeZone === 'Asia/Shanghai') throw new RangeError(`Invalid time zone specified: ${options.timeZone}`);
      return new Real(locale, options);
    };
  });
  await page.open();
  await page.signIn(SHOP.token);
  await page.waitText('#foot-zone', 'does not know the time zone Asia/Shanghai: times are shown in GMT+8');
  await page.waitText('#range-title', '17–19 May 2015');
  await page.waitText('#range-note', '3 days by hour, shown in GMT+8');
  await assertCharts(page, SHOP, MAY, 'hour');
  await tab.waitForSelector('.event');
  assert.deepEqual(await page.accessibilityFaults(), []);
  assert.equal(await page.overflows(), false);
  await page.shot('zone-unknown-phone');
}));

test('numbers and texts that JavaScript cannot hold are shown as they were sent', () => onPage({}, async (page, tab) => {
  const raw = { '@big': '9007199254740993', '@beyond': '18446744073709551617', '@endless': '1e999', '@exact': '1.10', '@half': '"a\\ud800b"' };
  const names = Object.fromEntries(Object.keys(raw).map((name) => [name.slice(1), name]));
  await send(FRESH, randomUUID(), [event(1, 'custom', 'odd_values', Date.now(), { props: { ...names, list: ['@big'] } })], {}, raw);
  await collector.delivered(FRESH, sent.fresh);
  await page.open();
  await page.signIn(FRESH.token);
  await tab.waitForSelector('.event');
  await tab.click('.event');
  const shown = await tab.$eval('.event-details .json', (node) => node.textContent);
  for (const [name, text] of Object.entries(raw)) assert.ok(shown.includes(`"${name.slice(1)}": ${text}`), `${name} in ${shown}`);
  await page.shot('odd-values-desktop');
}));
