// What every build must record in a mini-program host, and what it must never do to the app.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { harness } from './harness.mjs';

/** Runs the tests on one of host.mjs's BUILDS. */
export function recording(build) {
  describe(`recording, ${build}`, () => {
    const h = harness(build);

    test('an event arrives once, with everything that is known about it', async () => {
      const life = await h.launch();
      const id = life.sdk.track('cart_add', { sku: '京东🚇', price: 12.5, tags: ['a', null] }, { theme: 'order', trueTs: 1431835500000, page: { path: 'pages/cart', title: '购物车', referrer: 'pages/index', enterTs: 5 } });
      await life.advance(60_000);
      assert.equal(h.collector.requests.length, 1);
      const [{ batch, headers }] = h.collector.requests;
      assert.equal(headers['x-subway-key'], 'k1');
      assert.equal(batch.install_id, life.sdk.getDeviceId());
      assert.deepEqual(batch.app, { version: '1.2.0' });
      assert.deepEqual(batch.host, { platform: h.phone.build.platform, version: '13.0' });
      assert.deepEqual(batch.device, { os: 'iOS', os_version: '17.1', brand: 'Apple', model: 'iPhone 15', screen: '390x844', language: 'zh_CN' });
      assert.equal(batch.network, 'wifi');
      const [event] = h.collector.events();
      assert.equal(event.id, id);
      assert.equal(event.theme, 'order');
      assert.equal(event.seq, 1);
      assert.equal(event.true_ts, 1431835500000);
      assert.deepEqual(event.props, { sku: '京东🚇', price: 12.5, tags: ['a', null] });
      assert.deepEqual(event.page, { path: 'pages/cart', title: '购物车', referrer: 'pages/index', enter_ts: 5 });
      assert.deepEqual({ ...life.sdk.getLedger(), dropped: { ...life.sdk.getLedger().dropped } }, { generated: 1, acked: 1, queued: 0, dropped: {} });
      assert.deepEqual(life.warnings, []);
    });

    test('calls before init keep their own time and page', async () => {
      const life = await h.phone.launch();
      const start = h.phone.wall;
      life.openPage('pages/first', {});
      life.sdk.track('early', { n: 1 });
      await life.advance(2500);
      life.openPage('pages/second', {});
      await life.advance(500);
      h.init(life);
      await life.advance(60_000);
      const early = h.collector.events().find((event) => event.code === 'early');
      assert.equal(early.ts, start);
      assert.equal(early.page.path, 'pages/first');
      const views = h.collector.events().filter((event) => event.code === 'page_view');
      assert.deepEqual(views.map((event) => [event.ts - start, event.page.path, event.page.referrer]), [[0, 'pages/first', undefined], [2500, 'pages/second', 'pages/first']]);
    });

    test('a page was reached from the one before, also from another of its path; coming back from the background changes nothing', async () => {
      const life = await h.launch();
      const detail = { onLoad() {}, onShow() {}, onHide() {} };
      life.openPage('pages/list', {}).onHide();
      life.openPage('pages/detail', detail, { id: '1' }).onHide();
      const last = life.openPage('pages/detail', detail, { id: '2' });
      last.onHide();
      last.onShow();
      life.sdk.flush(() => {});
      await life.settle();
      const views = h.collector.events().filter((event) => event.code === 'page_view');
      assert.deepEqual(views.map((event) => event.page.referrer), [undefined, 'pages/list', 'pages/detail', 'pages/detail']);
    });

    test('calls before init are bounded, and what is lost is said', async () => {
      const life = await h.phone.launch();
      for (let n = 0; n < 250; n++) life.sdk.track('early', { n });
      h.init(life);
      await life.advance(60_000);
      assert.equal(h.codes().filter((code) => code === 'early').length, 200);
      assert.match(life.warnings.join(), /50 calls before init were lost/);
    });

    test('app and page lifecycle, shares and taps are recorded; the app sees nothing of it', async () => {
      const life = await h.launch();
      const seen = [];
      const context = life.context;
      const made = context.App({ onLaunch(arg) { seen.push(['launch', arg.scene]); return 'L'; }, onShow() {}, onHide() { seen.push('hide'); } });
      assert.equal(made, 'app made');
      assert.equal(life.appOptions.onLaunch({ scene: 1001, path: 'pages/index', query: { c: 'qr' } }), 'L');
      life.appOptions.onShow({ scene: 1001 });
      const page = life.openPage('pages/index', {
        onShow() { seen.push('show'); life.sdk.track('inside_show'); },
        onShareAppMessage() { return { title: 'T', path: 'pages/index?x=1' }; },
        buy(event) { seen.push(event.type); return 42; },
        helper(a, b) { return a + b; },
      }, { id: '7' });
      await life.advance(3000);
      assert.deepEqual(page.onShareAppMessage({ from: 'menu' }), { title: 'T', path: 'pages/index?x=1' });
      assert.equal(page.buy({ type: 'tap', currentTarget: { id: 'b1', dataset: { sku: 's9' } } }), 42);
      assert.equal(page.helper(2, 3), 5);
      page.onHide();
      life.appOptions.onHide();
      await life.settle();
      assert.deepEqual(seen, [['launch', 1001], 'show', 'tap', 'hide']);
      const events = h.collector.events();
      assert.deepEqual(events.map((event) => [event.theme, event.code]), [
        ['lifecycle', 'app_launch'], ['lifecycle', 'app_show'], ['custom', 'inside_show'], ['view', 'page_view'], ['share', 'page_share'],
        ['click', 'mp_click'], ['lifecycle', 'page_leave'], ['lifecycle', 'app_hide'],
      ]);
      assert.deepEqual(events[0].props, { scene: 1001, path: 'pages/index', query: { c: 'qr' } });
      assert.equal(events[2].page.path, 'pages/index');
      assert.deepEqual(events[3].props, { query: { id: '7' } });
      assert.deepEqual(events[5].props, { method: 'buy', type: 'tap', element_id: 'b1', dataset: { sku: 's9' } });
      assert.deepEqual(events[6].props, { duration_ms: 3000 });
      assert.equal(new Set(events.map((event) => event.session.id)).size, 1);
      assert.ok(!('onShareAppMessage' in (life.context.Page({}), life.pageOptions)), 'a page that cannot be shared stays so');
    });

    test('pages made by Component are recorded too', async () => {
      const life = await h.launch();
      assert.equal(life.context.Component({ methods: { go() {} } }), 'component made');
      const page = Object.assign({ route: 'pages/c' }, life.componentOptions.methods);
      page.onLoad({});
      page.onShow();
      page.go({ type: 'tap', currentTarget: { dataset: {} } });
      await life.advance(60_000);
      assert.deepEqual(h.codes(), ['page_view', 'mp_click']);
    });

    test('what the app throws is thrown, and recorded all the same', async () => {
      const life = await h.launch();
      life.context.App({ onLaunch() { throw new TypeError('of the app'); } });
      assert.throws(() => life.appOptions.onLaunch({}), /of the app/);
      await life.advance(60_000);
      assert.deepEqual(h.codes(), ['app_launch']);
    });

    test('autoTrack chooses', async () => {
      const life = await h.launch({ autoTrack: { pageShow: true } });
      life.context.App({});
      life.appOptions.onLaunch({});
      const page = life.openPage('pages/a', { go() {} });
      page.go({ type: 'tap', currentTarget: {} });
      page.onHide();
      await life.advance(60_000);
      assert.deepEqual(h.codes(), ['page_view']);
    });

    test('no mistake of the app and no failure of the host throws', async () => {
      const life = await h.phone.launch();
      const cycle = {};
      cycle.cycle = cycle;
      for (const bad of [undefined, null, {}, { server: h.collector.url }, 7]) life.sdk.init(bad);
      h.init(life);
      await life.settle();
      life.sdk.init({});
      for (const name of Object.keys(life.sdk)) {
        if (['init', 'close', 'createInstance', 'miniAdapter', 'wrappers', 'setConsent'].includes(name)) continue;
        for (const bad of [undefined, null, 7, 'x', [], cycle, () => {}]) assert.doesNotThrow(() => life.sdk[name](bad, bad, bad), `${name}(${typeof bad})`);
      }
      life.sdk.track('bad\ncode', {});
      life.sdk.track('good', [1]);
      life.sdk.track('good', { toJSON() { throw new Error('in toJSON'); } });
      life.sdk.track('good', {}, { theme: 'nonsense' });
      life.sdk.track('good', {}, { trueTs: -1 });
      assert.equal(typeof life.sdk.track('fine'), 'string');
      await life.advance(60_000);
      assert.ok(h.codes().includes('fine'));
      const warnings = life.warnings.join('\n');
      for (const expected of ['init needs', 'init was called twice', 'invalid_code', 'unknown_theme', 'time_out_of_range', 'in toJSON']) assert.ok(warnings.includes(expected), expected);
    });

    test('a host that throws everywhere costs the app nothing', async () => {
      const life = await h.phone.launch({ missing: ['getStorageSync', 'setStorageSync', 'removeStorageSync', 'getStorageInfoSync', 'getSystemInfoSync', 'getNetworkType', 'onNetworkStatusChange', 'request'] });
      h.init(life);
      life.sdk.track('a');
      life.context.App({ onLaunch: () => 'kept' });
      assert.equal(life.appOptions.onLaunch({}), 'kept');
      await life.advance(60_000);
      assert.match(life.warnings.join(), /the storage does not work/);
    });

    test('user, common properties and timers', async () => {
      let life = await h.launch();
      life.sdk.identify('u1');
      life.sdk.registerApp({ channel: 'qr', n: 1 });
      life.sdk.registerApp({ n: 2 });
      life.sdk.track('a');
      await life.advance(60_000);
      assert.deepEqual(h.collector.requests[0].batch.common, { channel: 'qr', n: 2 });
      life.kill();
      life = await h.launch();
      life.sdk.track('b');
      life.sdk.trackTimerStart('load');
      await life.advance(1500);
      life.sdk.trackTimerEnd('load', { kind: 'cold' });
      life.sdk.logout();
      life.sdk.clearAppRegister();
      life.sdk.track('c');
      await life.advance(60_000);
      const by = Object.fromEntries(h.collector.events().map((event) => [event.code, event]));
      assert.deepEqual([by.a.user_id, by.b.user_id, by.c.user_id], ['u1', 'u1', undefined]);
      assert.deepEqual(by.load.props, { kind: 'cold', duration_ms: 1500 });
      const last = h.collector.requests.find(({ batch }) => batch.events.some((event) => event.code === 'c'));
      assert.equal(last.batch.common, undefined);
      life.sdk.trackTimerEnd('load');
      assert.match(life.warnings.join(), /no timer named load/);
    });

    test('sessions end in the background and after idling', async () => {
      const life = await h.launch();
      life.context.App({});
      const session = () => {
        life.sdk.track('s');
        return life.advance(20_000).then(() => h.collector.events().at(-1).session);
      };
      life.appOptions.onShow({});
      const first = await session();
      life.appOptions.onHide();
      await life.advance(10_000);
      life.appOptions.onShow({});
      assert.equal((await session()).id, first.id);
      life.appOptions.onHide();
      await life.advance(40_000);
      life.appOptions.onShow({});
      const second = await session();
      assert.notEqual(second.id, first.id);
      assert.equal(second.index, first.index + 1);
      await life.advance(31 * 60_000);
      assert.notEqual((await session()).id, second.id);
    });

    test('the network type follows the host', async () => {
      const life = await h.launch();
      life.onNetwork({ networkType: '4g' });
      life.sdk.track('a');
      await life.advance(60_000);
      assert.equal(h.collector.requests[0].batch.network, '4g');
    });
  });
}
