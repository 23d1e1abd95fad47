// What every file of tests starts from: a collector with data in it, a browser, and pages that fail when something forbidden happens.

import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { Browser } from './browser.mjs';
import { APPS, Collector } from './collector.mjs';
import { bucketsOf, kioskHistory, shopHistory } from './data.mjs';

export const [SHOP, KIOSK, FRESH, FAR] = APPS;
/** The days of the shop's history. */
export const MAY = { from: '2015-05-17', to: '2015-05-20' };
/** What the browser says about an expected 401, and about a collector that is not there. */
export const REFUSED = [/401/];
export const AWAY = [/ERR_CONNECTION_REFUSED/, /ERR_CONNECTION_RESET/, /ERR_EMPTY_RESPONSE/, /ERR_CONNECTION_CLOSED/];

export const collector = new Collector();
export const history = shopHistory();
export const kiosk = kioskHistory(Date.now());
/** Events sent so far, by app. */
export const sent = { shop: 0, kiosk: 0, fresh: 0, far: 0 };
let browser;

export async function send(app, install, events, envelope, raw) {
  await collector.send(app, install, events, envelope, raw);
  sent[app.key] += events.length;
}

before(async () => {
  await collector.start();
  for (const { install, events } of history) await send(SHOP, install, events);
  await send(KIOSK, kiosk.install, [...kiosk.older, ...kiosk.recent]);
  await collector.delivered(SHOP, sent.shop);
  await collector.delivered(KIOSK, sent.kiosk);
  browser = await Browser.launch();
});

after(async () => {
  await browser?.close();
  await collector.remove();
});

/** Runs `steps` on a guarded page and fails when anything forbidden happened, `expected` patterns aside. */
export async function onPage(options, steps, expected = []) {
  const page = await browser.page(collector.base, options);
  let failed = true;
  try {
    await steps(page, page.page);
    failed = false;
  } finally {
    if (failed) await page.shot('failed').catch(() => {});
    const faults = await page.end(expected);
    if (!failed || faults.length > 0) assert.deepEqual(faults, []);
  }
}

const events = (counted) => [...counted].filter(([, value]) => value !== 0);
const byInstant = (rows) => new Map(events(rows.map(([start, value]) => [Date.parse(start), value])));

/** The page's tables and drawings equal the collector's answers, and those equal the second opinion where there is one. */
export async function assertCharts(page, app, range, interval, opinion) {
  for (const metric of ['pv', 'uv', 'new_users']) {
    const { series, total } = await collector.metric(app, metric, range, interval);
    const rows = await page.table(metric);
    assert.deepEqual(rows, series.map(({ start, value }) => [start, value]), `${metric} by ${interval}: the table`);
    assert.deepEqual(await page.drawn(metric), series.map(({ value }) => value), `${metric} by ${interval}: the drawing`);
    assert.equal((await page.tiles())[metric], total, `${metric}: the tile`);
    if (opinion) assert.deepEqual(byInstant(rows), new Map([...bucketsOf(opinion, metric, interval)].sort((a, b) => a[0] - b[0])), `${metric} by ${interval}: counted again`);
  }
}
