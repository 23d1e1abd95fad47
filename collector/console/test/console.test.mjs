// The console in a real browser against the real collector. `cargo xtask test` sets the environment and runs this.

import assert from 'node:assert/strict';
import { createHash, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, test } from 'node:test';
import { Browser, DESKTOP, PHONE, toolFile } from './browser.mjs';
import { APPS, Collector, event } from './collector.mjs';
import { bucketsOf, HOSTILE, kioskHistory, shopHistory, totalsOf } from './data.mjs';

const [SHOP, KIOSK, FRESH] = APPS;
const MAY = { from: '2015-05-17', to: '2015-05-20' };
const REFUSED = [/401/];

const collector = new Collector();
const history = shopHistory();
const kiosk = kioskHistory(Date.now());
const sent = { shop: 0, kiosk: 0, fresh: 0 };
let browser;

async function send(app, install, events, envelope) {
  await collector.send(app, install, events, envelope);
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
async function onPage(options, steps, expected = []) {
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
async function assertCharts(page, app, range, interval, opinion) {
  for (const metric of ['pv', 'uv', 'new_users']) {
    const { series, total } = await collector.metric(app, metric, range, interval);
    const rows = await page.table(metric);
    assert.deepEqual(rows, series.map(({ start, value }) => [start, value]), `${metric} by ${interval}: the table`);
    assert.deepEqual(await page.drawn(metric), series.map(({ value }) => value), `${metric} by ${interval}: the drawing`);
    assert.equal((await page.tiles())[metric], total, `${metric}: the tile`);
    if (opinion) assert.deepEqual(byInstant(rows), new Map([...bucketsOf(opinion, metric, interval)].sort((a, b) => a[0] - b[0])), `${metric} by ${interval}: counted again`);
  }
}

test('the vendored chart library is the published one', () => {
  const vendored = join(import.meta.dirname, '../vendor');
  const published = dirname(toolFile('chart.js'));
  const hash = (file) => createHash('sha256').update(readFileSync(file)).digest('hex');
  assert.equal(hash(join(vendored, 'chart.umd.min.js')), hash(join(published, 'chart.umd.min.js')));
  assert.equal(hash(join(vendored, 'chart.LICENSE.md')), hash(join(published, '../LICENSE.md')));
  const { version } = JSON.parse(readFileSync(join(published, '../package.json'), 'utf8'));
  assert.match(readFileSync(join(import.meta.dirname, '../README.md'), 'utf8'), new RegExp(`Chart\\.js ${version.replaceAll('.', '\\.')}`));
});

test('the page is served with a strict policy and needs nothing else', async () => {
  const response = await fetch(`${collector.base}/`);
  assert.equal(response.status, 200);
  assert.match(response.headers.get('content-type'), /^text\/html/);
  const policy = response.headers.get('content-security-policy');
  assert.match(policy, /default-src 'self'/);
  assert.doesNotMatch(policy, /unsafe|https?:|\*/);
});

test('a wrong token is refused with the words of the collector', () => onPage({ viewport: PHONE }, async (page, tab) => {
  await page.open();
  await tab.waitForSelector('#signin-token', { visible: true });
  await page.shot('signin-phone');
  await tab.type('#signin-token', 'not-a-token');
  await tab.keyboard.press('Enter');
  await tab.waitForFunction(() => document.getElementById('signin-error').textContent !== '');
  const problem = await (await fetch(`${collector.base}/v1/apps`, { headers: { authorization: 'Bearer not-a-token' } })).json();
  assert.equal(problem.status, 401);
  assert.ok((await tab.$eval('#signin-error', (node) => node.textContent)).includes(problem.title));
  assert.equal(await tab.evaluate(() => sessionStorage.length), 0);
  assert.deepEqual(await page.accessibilityFaults(), []);
}, REFUSED));

test('the token is asked for once, kept for the session only, and never in an address', () => onPage({}, async (page, tab) => {
  await page.open();
  await page.signIn(SHOP.token);
  await tab.reload();
  await page.settled();
  assert.equal(await tab.evaluate(() => localStorage.length + document.cookie.length), 0);
  assert.ok(page.requests.every((url) => !url.includes(SHOP.token)));
  assert.ok(!tab.url().includes(SHOP.token));
  await tab.click('#sign-out');
  await tab.waitForSelector('#signin-token', { visible: true });
  assert.equal(await tab.evaluate(() => sessionStorage.getItem('subway.tokens')), null);
}));

test('a link may carry the token after #: it is taken and removed at once', () => onPage({}, async (page, tab) => {
  await page.open(`#token=${SHOP.token}`);
  await page.settled();
  assert.ok(!tab.url().includes('token'));
  assert.ok(page.requests.every((url) => !url.includes(SHOP.token)));
}));

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

test('events appear by themselves, the numbers follow, pause holds them, the filter narrows them', () => onPage({}, async (page, tab) => {
  const install = randomUUID();
  await page.open();
  await page.signIn(FRESH.token);
  if (sent.fresh === 0) {
    await page.waitText('#notice', 'Waiting for the first event');
    const example = await tab.$eval('#notice pre', (node) => node.textContent);
    assert.ok(example.includes(`server: '${collector.base}', key: "fresh"`), example);
    const typings = readFileSync(join(import.meta.dirname, '../../../sdk-wasm/js/index.d.ts'), 'utf8');
    for (const name of ['server: string;', 'key: string;', 'init(options: Options)', 'track(code: string']) assert.ok(typings.includes(name), `${name} in the SDK's typings`);
    await page.shot('fresh-desktop');
  }
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

test('hostile strings in events stay text', () => onPage({}, async (page, tab) => {
  const more = {
    user_id: HOSTILE,
    page: { path: `pages/${HOSTILE}`, title: HOSTILE, referrer: 'javascript:alert(1)' },
    props: { [HOSTILE]: HOSTILE, nested: { html: HOSTILE }, '__proto__x': '</pre><script>alert(2)</script>' },
  };
  const envelope = { host: { platform: HOSTILE.slice(0, 30) }, device: { os: '<b>os</b>', brand: HOSTILE.slice(0, 60) } };
  await send(FRESH, randomUUID(), [event(1, 'custom', 'hostile', Date.now(), more)], envelope);
  await collector.delivered(FRESH, sent.fresh);
  await page.open();
  await page.signIn(FRESH.token);
  await tab.waitForFunction(() => [...document.querySelectorAll('.event-code')].some((cell) => cell.textContent === 'hostile'));
  await tab.$$eval('.event', (rows) => rows.forEach((row) => row.click()));
  const text = await tab.$$eval('.json', (nodes) => nodes.map((node) => node.textContent).join('\n'));
  assert.ok(text.includes(JSON.stringify(HOSTILE)));
  assert.equal(await tab.$$eval('.live img, .live script, .live svg, .live b', (nodes) => nodes.length), 0);
  // A filter and a link are inputs of strangers too.
  await tab.evaluate((value) => { location.hash = `app=${encodeURIComponent(value)}&range=${encodeURIComponent(value)}`; }, HOSTILE);
  await page.waitText('#add-hint', HOSTILE);
  assert.equal(await tab.evaluate(() => globalThis.hacked), undefined);
  assert.equal(await tab.$$eval('dialog img, dialog script, dialog svg', (nodes) => nodes.length), 0);
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

test('a collector that is busy at the start is asked again with the same token', () => onPage({}, async (page, tab) => {
  await tab.evaluateOnNewDocument((token) => sessionStorage.setItem('subway.tokens', JSON.stringify([token])), SHOP.token);
  let refusals = 0;
  await tab.setRequestInterception(true);
  tab.on('request', (request) => {
    if (!request.url().endsWith('/v1/apps') || refusals > 0) {
      request.continue();
      return;
    }
    refusals += 1;
    const problem = { type: 'about:blank', title: 'Too busy', status: 503, detail: 'Come back in a second.' };
    request.respond({ status: 503, contentType: 'application/problem+json', headers: { 'retry-after': '1' }, body: JSON.stringify(problem) });
  });
  await page.open();
  await page.waitText('#signin-error', 'Too busy: Come back in a second.');
  await page.settled();
  assert.deepEqual(await page.tiles(), totalsOf(history));
}, [/503/]));

test('numbers that are refused are said to be, in the words of the collector', () => onPage({ viewport: PHONE }, async (page, tab) => {
  await page.open();
  await page.signIn(SHOP.token);
  await tab.setRequestInterception(true);
  let broken = true;
  tab.on('request', (request) => {
    if (!broken || !request.url().includes('/metrics/uv')) {
      request.continue();
      return;
    }
    const problem = { type: 'about:blank', title: 'The store cannot be read', status: 500, detail: `disk <b>${HOSTILE}</b>` };
    request.respond({ status: 500, contentType: 'application/problem+json', body: JSON.stringify(problem) });
  });
  await tab.$eval('#intervals input[value="day"]', (input) => input.click());
  await page.waitText('#notice', 'The store cannot be read');
  await page.waitText('#notice', HOSTILE);
  assert.equal(await tab.$$eval('#notice img, #notice b', (nodes) => nodes.length), 0);
  await page.shot('refused-phone');
  broken = false;
  await tab.click('#notice button');
  await page.settled();
  await assertCharts(page, SHOP, MAY, 'day', history);
  assert.equal(await tab.$eval('#notice', (node) => node.textContent), '');
}, [/500/]));

test('a collector that is away is said to be away, and the page recovers by itself', () => onPage({}, async (page, tab) => {
  await page.open();
  await page.signIn(SHOP.token);
  await collector.stop();
  await tab.$eval('#intervals input[value="day"]', (input) => input.click());
  await page.waitText('#notice', 'does not answer');
  await page.waitText('#live-status', 'does not answer');
  assert.deepEqual(await page.accessibilityFaults(), []);
  await page.shot('away-desktop');
  await collector.start();
  await tab.waitForFunction(() => document.getElementById('notice').textContent === '', { timeout: 30_000 });
  await page.waitText('#live-status', 'Updated');
  await page.settled();
  await assertCharts(page, SHOP, MAY, 'day', history);
}, [/ERR_CONNECTION_REFUSED/, /ERR_CONNECTION_RESET/, /ERR_EMPTY_RESPONSE/, /ERR_CONNECTION_CLOSED/]));

test('a token that is no longer accepted is asked for again', () => onPage({}, async (page, tab) => {
  await page.open();
  await page.signIn(SHOP.token);
  await collector.stop();
  await collector.start(APPS.map((app) => ({ ...app, token: app === SHOP ? 'read-shop-changed-0123456' : app.token })));
  await tab.waitForSelector('#signin-token', { visible: true });
  assert.notEqual(await tab.$eval('#signin-error', (node) => node.textContent), '');
  assert.ok(!(await tab.evaluate(() => sessionStorage.getItem('subway.tokens') ?? '')).includes(SHOP.token));
  await page.signIn('read-shop-changed-0123456');
  assert.deepEqual(await page.tiles(), totalsOf(history));
}, [...REFUSED, /ERR_CONNECTION_REFUSED/, /ERR_CONNECTION_RESET/, /ERR_EMPTY_RESPONSE/, /ERR_CONNECTION_CLOSED/]));
