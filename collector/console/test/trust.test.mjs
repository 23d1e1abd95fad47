// What the console may not do, and what it does when things go wrong: tokens, hostile strings, refusals, a collector that is away.

import assert from 'node:assert/strict';
import { createHash, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { PHONE, toolFile } from './browser.mjs';
import { APPS, event } from './collector.mjs';
import { HOSTILE, totalsOf } from './data.mjs';
import { assertCharts, AWAY, collector, FRESH, history, MAY, onPage, REFUSED, send, sent, SHOP } from './harness.mjs';

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
}, AWAY));

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
}, [...REFUSED, ...AWAY]));
