// What the console shows is what the collector answers, and what was sent: numbers, ranges, apps, charts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DESKTOP, PHONE } from './browser.mjs';
import { totalsOf } from './data.mjs';
import { assertCharts, collector, history, kiosk, KIOSK, MAY, onPage, SHOP } from './harness.mjs';

for (const [width, viewport] of [['desktop', DESKTOP], ['phone', PHONE]]) {
  test(`opens on the range that has data and shows its exact numbers, ${width}`, () => onPage({ viewport }, async (page) => {
    await page.open();
    await page.signIn(SHOP.token);
    assert.deepEqual(await page.view(), { app: 'shop', range: 'all', interval: 'hour' });
    const totals = totalsOf(history);
    assert.deepEqual(await page.tiles(), totals);
    assert.deepEqual(await page.tileTexts(), Object.fromEntries(Object.entries(totals).map(([name, value]) => [name, String(value)])));
    await assertCharts(page, SHOP, MAY, 'hour', history);
    await page.shot(`shop-hour-${width}`);
    await page.pick('intervals', 'day');
    await assertCharts(page, SHOP, MAY, 'day', history);
    for (const interval of ['week', 'month']) {
      await page.pick('intervals', interval);
      await assertCharts(page, SHOP, MAY, interval);
    }
    assert.equal(await page.overflows(), false);
  }));
}

test('a custom range is applied, named in the address, and survives a reload', () => onPage({}, async (page, tab) => {
  await page.open();
  await page.signIn(SHOP.token);
  await page.pick('ranges', 'custom');
  const fill = (id, date) => tab.$eval(id, (input, value) => { input.value = value; }, date);
  await fill('#custom-from', '2015-05-19');
  await fill('#custom-to', '2015-05-18');
  await tab.click('#custom button');
  await page.waitText('#custom-error', 'after the last');
  await fill('#custom-from', '2015-05-18');
  await tab.click('#custom button');
  await page.waitText('#range-title', '18 May 2015');
  await page.settled();
  const wanted = { app: 'shop', range: 'custom', from: '2015-05-18', to: '2015-05-18', interval: 'hour' };
  assert.deepEqual(await page.view(), wanted);
  const day = { from: '2015-05-18', to: '2015-05-19' };
  await assertCharts(page, SHOP, day, 'hour');
  assert.equal((await page.table('pv')).length, 24);
  await tab.reload();
  await page.settled();
  assert.deepEqual(await page.view(), wanted);
  await assertCharts(page, SHOP, day, 'hour');
}));

test('a range without data says where the data is and goes there', () => onPage({ viewport: PHONE, scheme: 'dark' }, async (page, tab) => {
  await page.open('#app=shop&range=today');
  await page.signIn(SHOP.token);
  await page.waitText('#notice', '17–19 May 2015');
  assert.equal((await page.tiles()).pv, 0);
  await page.shot('shop-empty-range-phone-dark');
  await tab.click('#notice button');
  await page.waitText('#range-title', '17–19 May 2015');
  await page.settled();
  assert.deepEqual(await page.tiles(), totalsOf(history));
  assert.equal(await tab.$eval('#notice', (node) => node.textContent), '');
}));

test('a second app is added with its own token and switched to', () => onPage({}, async (page, tab) => {
  await page.open();
  await page.signIn(SHOP.token);
  await tab.click('#add-app');
  await tab.type('#add-token', KIOSK.token);
  await tab.keyboard.press('Enter');
  await page.waitText('#zone', 'America/New_York');
  await page.settled();
  assert.deepEqual(await page.view(), { app: 'kiosk', range: '7d', interval: 'day' });
  assert.equal((await page.tiles()).events, kiosk.recent.length);
  assert.equal(await tab.$eval('.tile[data-metric="events"] .tile-change', (node) => node.firstChild.textContent), `+${kiosk.recent.length / kiosk.older.length * 100 - 100}%`);
  const rows = await page.table('pv');
  assert.equal(rows.length, 7);
  // The page's own days, so that a midnight during the test does not matter; 26 hours are in the next day, whatever the clocks do.
  const next = new Intl.DateTimeFormat('en-CA', { timeZone: KIOSK.timezone }).format(Date.parse(rows.at(-1)[0]) + 26 * 3_600_000);
  const { series } = await collector.metric(KIOSK, 'pv', { from: rows[0][0], to: next }, 'day');
  assert.deepEqual(rows, series.map(({ start, value }) => [start, value]));
  await page.shot('kiosk-desktop');
  await tab.select('#app', 'shop');
  await page.waitText('#zone', 'Asia/Shanghai');
  await page.settled();
  assert.deepEqual(await page.tiles(), totalsOf(history));
  await tab.reload();
  await page.settled();
  assert.deepEqual(await tab.$$eval('#app option', (options) => options.map(({ value }) => value)), ['kiosk', 'shop']);
}));

test('the hour that is not over is marked, and a line ends there', () => onPage({}, async (page, tab) => {
  // The page loads between two looks at the clock; an hour may begin in between.
  let looked = Date.now();
  const assertMarked = async () => {
    const texts = await tab.$$eval('.chart[data-metric="pv"] tbody th', (cells) => cells.map((cell) => cell.textContent));
    const marked = texts.flatMap((text, index) => (text.endsWith('(so far)') ? [index] : []));
    const rows = await page.table('pv');
    const possible = [looked, Date.now()].map((now) => rows.findLastIndex(([start]) => Date.parse(start) <= now));
    assert.equal(marked.length, 1);
    assert.ok(possible.includes(marked[0]), `${marked} is none of ${possible}`);
    return { rows, running: marked[0] };
  };
  await page.open('#app=kiosk&range=today&interval=hour');
  await page.signIn(KIOSK.token);
  await assertMarked();
  await page.shot('kiosk-today-desktop');
  await page.pick('ranges', '30d');
  looked = Date.now();
  await page.pick('intervals', 'hour');
  const { rows, running } = await assertMarked();
  assert.deepEqual(await page.drawn('pv'), rows.map(([, value], index) => (index > running ? null : value)));
}));

test('a link to an app whose token is missing asks for that token', () => onPage({}, async (page, tab) => {
  await page.open('#app=kiosk&range=30d&interval=day');
  await page.signIn(SHOP.token);
  await page.waitText('#add-hint', 'kiosk');
  assert.deepEqual(await page.accessibilityFaults(), []);
  await tab.type('#add-token', KIOSK.token);
  await tab.keyboard.press('Enter');
  await page.waitText('#zone', 'America/New_York');
}));

test('everything can be done with the keyboard, and the charts have tables', () => onPage({}, async (page, tab) => {
  await page.open();
  await page.signIn(SHOP.token);
  await tab.focus('#ranges input:checked');
  await tab.keyboard.press('ArrowLeft');
  await page.waitText('#range-note', '30 days');
  await page.settled();
  await tab.keyboard.press('ArrowRight');
  await page.waitText('#range-title', '17–19 May 2015');
  await page.settled();
  await tab.focus('.chart .button');
  await tab.keyboard.press('Enter');
  assert.equal(await tab.$eval('.chart .chart-table', (table) => table.hidden), false);
  assert.equal(await tab.$eval('.chart .button', (button) => button.getAttribute('aria-pressed')), 'true');
  await page.shot('shop-table-desktop');
  await tab.focus('.event');
  await tab.keyboard.press('Enter');
  assert.equal(await tab.$eval('.event', (row) => row.getAttribute('aria-expanded')), 'true');
  const label = await tab.$eval('.chart canvas', (canvas) => canvas.getAttribute('aria-label'));
  assert.match(label, new RegExp(`Page views by hour\\. Total ${totalsOf(history).pv}\\. Highest: \\d+, `));
}));

test('a chart names the bucket under the pointer', () => onPage({}, async (page, tab) => {
  await page.open();
  await page.signIn(SHOP.token);
  const rows = await page.table('pv');
  const index = rows.findIndex(([, value]) => value > 0);
  const box = await (await tab.$('.chart canvas')).boundingBox();
  const place = await tab.$eval('.chart canvas', (canvas, at) => {
    const { x, y } = globalThis.Chart.getChart(canvas).getDatasetMeta(0).data[at];
    return { x, y };
  }, index);
  await tab.mouse.move(box.x + place.x, box.y + place.y + 2);
  const tip = () => tab.$eval('.chart canvas', (canvas) => {
    const { title, body, opacity } = globalThis.Chart.getChart(canvas).tooltip;
    return { title: title?.[0], body: body?.[0]?.lines?.[0], opacity };
  });
  await tab.waitForFunction(() => globalThis.Chart.getChart(document.querySelector('.chart canvas')).tooltip.opacity === 1);
  const shown = await tip();
  assert.equal(shown.body, `${rows[index][1]} page views`);
  const local = new Date(Date.parse(rows[index][0]) + 8 * 3_600_000).toISOString();
  assert.ok(shown.title.endsWith(`${local.slice(11, 13)}:00`), `${shown.title} for ${local} in Shanghai`);
  await page.shot('shop-tooltip-desktop');
}));

test('nothing moves while numbers are loaded again', () => onPage({}, async (page, tab) => {
  await page.open();
  await page.signIn(SHOP.token);
  const places = () => tab.$$eval('.tile, .card, .toolbar', (nodes) => nodes.map((node) => JSON.stringify(node.getBoundingClientRect())));
  const at = await places();
  await page.pick('intervals', 'day');
  assert.deepEqual(await places(), at);
  await page.pick('intervals', 'month');
  assert.deepEqual(await places(), at);
}));
