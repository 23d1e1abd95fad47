// What every build of the package must do in a mini-program host.

import assert from 'node:assert/strict';
import { after, before, beforeEach, describe, test } from 'node:test';

import { Collector } from '../testing/collector.mjs';
import { Phone } from '../testing/host.mjs';

const DAY = 24 * 3600 * 1000;
const unavailable = () => [503, { 'retry-after': '1' }, ''];

/** Runs the suite on one of host.mjs's BUILDS. */
export function suite(build) {
  let collector;
  let phone;
  const init = (life, more) => life.sdk.init({ server: collector.url, key: 'k1', appVersion: '1.2.0', ...more });
  const codes = () => collector.events().map((event) => event.code);
  const balances = ({ generated, acked, queued, dropped }) => generated === acked + queued + Object.values(dropped).reduce((a, b) => a + b, 0);
  async function launch(more, options) {
    const life = await phone.launch(options);
    init(life, more);
    await life.settle();
    return life;
  }

  describe(build, () => {
    before(async () => (collector = await new Collector().start()));
    after(() => collector.stop());
    beforeEach(() => {
      phone = new Phone(build);
      collector.stored.clear();
      collector.requests = [];
      collector.faults = [];
    });

    test('an event arrives once, with everything that is known about it', async () => {
      const life = await launch();
      const id = life.sdk.track('cart_add', { sku: '京东🚇', price: 12.5, tags: ['a', null] }, { theme: 'order', trueTs: 1431835500000, page: { path: 'pages/cart', title: '购物车', referrer: 'pages/index', enterTs: 5 } });
      await life.advance(60_000);
      assert.equal(collector.requests.length, 1);
      const [{ batch, headers }] = collector.requests;
      assert.equal(headers['x-subway-key'], 'k1');
      assert.equal(batch.install_id, life.sdk.getDeviceId());
      assert.deepEqual(batch.app, { version: '1.2.0' });
      assert.deepEqual(batch.host, { platform: phone.build.platform, version: '13.0' });
      assert.deepEqual(batch.device, { os: 'iOS', os_version: '17.1', brand: 'Apple', model: 'iPhone 15', screen: '390x844', language: 'zh_CN' });
      assert.equal(batch.network, 'wifi');
      const [event] = collector.events();
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
      const life = await phone.launch();
      const start = phone.wall;
      life.openPage('pages/first', {});
      life.sdk.track('early', { n: 1 });
      await life.advance(2500);
      life.openPage('pages/second', {});
      await life.advance(500);
      init(life);
      await life.advance(60_000);
      const early = collector.events().find((event) => event.code === 'early');
      assert.equal(early.ts, start);
      assert.equal(early.page.path, 'pages/first');
      const views = collector.events().filter((event) => event.code === 'page_view');
      assert.deepEqual(views.map((event) => [event.ts - start, event.page.path, event.page.referrer]), [[0, 'pages/first', undefined], [2500, 'pages/second', 'pages/first']]);
    });

    test('calls before init are bounded, and what is lost is said', async () => {
      const life = await phone.launch();
      for (let n = 0; n < 250; n++) life.sdk.track('early', { n });
      init(life);
      await life.advance(60_000);
      assert.equal(codes().filter((code) => code === 'early').length, 200);
      assert.match(life.warnings.join(), /50 calls before init were lost/);
    });

    test('app and page lifecycle, shares and taps are recorded; the app sees nothing of it', async () => {
      const life = await launch();
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
      const events = collector.events();
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
      const life = await launch();
      assert.equal(life.context.Component({ methods: { go() {} } }), 'component made');
      const page = Object.assign({ route: 'pages/c' }, life.componentOptions.methods);
      page.onLoad({});
      page.onShow();
      page.go({ type: 'tap', currentTarget: { dataset: {} } });
      await life.advance(60_000);
      assert.deepEqual(codes(), ['page_view', 'mp_click']);
    });

    test('what the app throws is thrown, and recorded all the same', async () => {
      const life = await launch();
      life.context.App({ onLaunch() { throw new TypeError('of the app'); } });
      assert.throws(() => life.appOptions.onLaunch({}), /of the app/);
      await life.advance(60_000);
      assert.deepEqual(codes(), ['app_launch']);
    });

    test('autoTrack chooses', async () => {
      const life = await launch({ autoTrack: { pageShow: true } });
      life.context.App({});
      life.appOptions.onLaunch({});
      const page = life.openPage('pages/a', { go() {} });
      page.go({ type: 'tap', currentTarget: {} });
      page.onHide();
      await life.advance(60_000);
      assert.deepEqual(codes(), ['page_view']);
    });

    test('no mistake of the app and no failure of the host throws', async () => {
      const life = await phone.launch();
      const cycle = {};
      cycle.cycle = cycle;
      for (const bad of [undefined, null, {}, { server: collector.url }, 7]) life.sdk.init(bad);
      init(life);
      await life.settle();
      life.sdk.init({});
      for (const name of Object.keys(life.sdk)) {
        if (['init', 'close', 'createInstance', 'miniAdapter', 'wrappers', 'setConsent'].includes(name)) continue;
        for (const bad of [undefined, null, 7, 'x', [], cycle, () => {}]) assert.doesNotThrow(() => life.sdk[name](bad, bad, bad), `${name}(${typeof bad})`);
      }
      life.sdk.track('1 bad code', {});
      life.sdk.track('good', [1]);
      life.sdk.track('good', { toJSON() { throw new Error('in toJSON'); } });
      life.sdk.track('good', {}, { theme: 'nonsense' });
      life.sdk.track('good', {}, { trueTs: -1 });
      assert.equal(typeof life.sdk.track('fine'), 'string');
      await life.advance(60_000);
      assert.ok(codes().includes('fine'));
      const warnings = life.warnings.join('\n');
      for (const expected of ['init needs', 'init was called twice', 'invalid_code', 'unknown_theme', 'time_out_of_range', 'in toJSON']) assert.ok(warnings.includes(expected), expected);
    });

    test('a host that throws everywhere costs the app nothing', async () => {
      const life = await phone.launch({ missing: ['getStorageSync', 'setStorageSync', 'removeStorageSync', 'getStorageInfoSync', 'getSystemInfoSync', 'getNetworkType', 'onNetworkStatusChange', 'request'] });
      init(life);
      life.sdk.track('a');
      life.context.App({ onLaunch: () => 'kept' });
      assert.equal(life.appOptions.onLaunch({}), 'kept');
      await life.advance(60_000);
      assert.match(life.warnings.join(), /storage cannot be read/);
    });

    test('offline events survive a restart and arrive in order, once', async () => {
      phone.network = 'offline';
      let life = await launch();
      const install = life.sdk.getDeviceId();
      for (let n = 0; n < 30; n++) {
        life.sdk.track('n' + n);
        await life.advance(1);
      }
      life.kill();
      life = await launch();
      assert.equal(life.sdk.getDeviceId(), install);
      assert.equal(life.sdk.getLedger().queued, 30);
      phone.network = 'ok';
      await life.advance(DAY);
      assert.deepEqual(codes(), Array.from({ length: 30 }, (_, n) => 'n' + n));
      assert.deepEqual(collector.events().map((event) => event.seq), Array.from({ length: 30 }, (_, n) => n + 1));
    });

    test('an answer that was lost leads to the same batch again, and to no second event', async () => {
      phone.network = 'deaf';
      let life = await launch();
      life.sdk.track('a');
      life.sdk.track('b');
      await life.advance(15_000);
      life.sdk.track('c');
      life.kill();
      phone.network = 'ok';
      life = await launch();
      await life.advance(DAY);
      const firsts = collector.requests.filter(({ batch }) => batch.events[0].code === 'a');
      assert.ok(firsts.length >= 2);
      assert.equal(new Set(firsts.map(({ batch }) => batch.batch_id)).size, 1);
      assert.equal(new Set(firsts.map(({ batch }) => JSON.stringify(batch.events))).size, 1);
      assert.deepEqual(codes().slice(0, 2), ['a', 'b']);
      assert.ok(balances(life.sdk.getLedger()));
    });

    test('killed at any change of the storage, no event of an earlier turn is lost and none doubled', async () => {
      for (const kind of ['kill', 'tear', 'after', 'fail']) {
        let reached = true;
        for (let at = 0; reached; at++) {
          phone = new Phone(build);
          phone.fault = { at, kind };
          collector.stored.clear();
          let life = await launch({ flushEvents: 4 });
          const safe = [];
          for (let n = 0; n < 12; n++) {
            const id = life.sdk.track('turn', { n });
            await life.advance(1);
            if (life.dead) life = await launch({ flushEvents: 4 });
            else if (id) safe.push(id);
          }
          reached = phone.changes > at;
          await life.advance(DAY);
          for (const id of safe) assert.ok(collector.stored.has(id), `${kind} at ${at} lost an event`);
          const seqs = collector.events().map((event) => event.install_id + event.seq);
          assert.equal(new Set(seqs).size, seqs.length, `${kind} at ${at} gave a number twice`);
          const ledger = life.sdk.getLedger();
          assert.ok(balances(ledger) && ledger.queued === 0, `${kind} at ${at}: ${JSON.stringify(ledger)}`);
        }
      }
    });

    test('a full storage delays, and loses nothing while the app lives', async () => {
      phone.limit = 0;
      const life = await launch();
      life.sdk.track('a', { text: 'x'.repeat(1000) });
      await life.advance(30_000);
      assert.equal(collector.events().length, 0);
      phone.limit = 10 * 1024 * 1024;
      await life.advance(60_000);
      assert.deepEqual(codes(), ['a']);
      assert.match(life.warnings.join(), /storage is full/);
    });

    test('only a receipt ends the waiting', async () => {
      const life = await launch();
      collector.faults = [
        () => [200, { 'content-type': 'text/html' }, '<html>Welcome to the WLAN</html>'],
        () => [200, {}, ''],
        unavailable,
        () => [429, { 'retry-after': '2' }, ''],
        () => [404, {}, 'not here'],
        () => [401, {}, '{"detail":"unknown key"}'],
        () => [302, {}, ''],
      ];
      life.sdk.track('a');
      await life.advance(DAY);
      assert.deepEqual(codes(), ['a']);
      assert.equal(collector.requests.length, 8);
      assert.equal(new Set(collector.requests.map(({ batch }) => batch.batch_id)).size, 1);
      assert.match(life.warnings.join(), /unknown key/);
    });

    test('Retry-After is obeyed, as seconds and as a date', async () => {
      for (const header of [() => '120', () => new Date(phone.wall + 120_000).toUTCString()]) {
        const life = await launch({ storagePrefix: 'p' + Math.random() });
        collector.requests = [];
        collector.faults = [() => [503, { 'retry-after': header() }, '']];
        life.sdk.track('a');
        life.sdk.flush(() => {});
        await life.advance(118_000);
        assert.equal(collector.requests.length, 1);
        await life.advance(300_000);
        assert.equal(collector.requests.length, 2);
      }
    });

    test('a refused batch is halved until the event to blame is alone', async () => {
      const life = await launch();
      const poisonous = (batch) => (batch.events.some((event) => event.code === 'poison') ? [400, {}, '{"detail":"bad"}'] : null);
      collector.faults = Array.from({ length: 50 }, () => poisonous);
      for (let n = 0; n < 9; n++) life.sdk.track(n === 5 ? 'poison' : 'good', { n });
      await life.advance(DAY);
      assert.equal(codes().length, 8);
      assert.deepEqual({ ...life.sdk.getLedger(), dropped: { ...life.sdk.getLedger().dropped } }, { generated: 9, acked: 8, queued: 0, dropped: { poison: 1 } });
    });

    test('without consent nothing is stored or sent; a refusal wipes', async () => {
      let life = await launch({ consentRequired: true });
      life.sdk.track('before');
      life.context.App({});
      life.appOptions.onShow();
      await life.advance(60_000);
      assert.equal(phone.storage.size, 0);
      assert.equal(life.requests, 0);
      assert.equal(life.sdk.getConsent(), 'unknown');
      life.sdk.setConsent(true);
      await life.advance(60_000);
      assert.deepEqual(codes(), ['before', 'app_show']);
      phone.network = 'offline';
      const install = life.sdk.getDeviceId();
      life.sdk.identify('secret-user');
      life.sdk.track('secret_event');
      await life.advance(1);
      life.sdk.setConsent(false);
      await life.advance(1);
      const left = [...phone.storage.values()].join();
      assert.ok(!/secret/.test(left) && !left.includes(install), left);
      assert.equal(life.sdk.track('after'), undefined);
      life.kill();
      phone.network = 'ok';
      life = await launch({ consentRequired: true });
      assert.equal(life.sdk.getConsent(), 'denied');
      await life.advance(60_000);
      assert.equal(collector.events().length, 2);
    });

    test('user, common properties and timers', async () => {
      let life = await launch();
      life.sdk.identify('u1');
      life.sdk.registerApp({ channel: 'qr', n: 1 });
      life.sdk.registerApp({ n: 2 });
      life.sdk.track('a');
      await life.advance(60_000);
      assert.deepEqual(collector.requests[0].batch.common, { channel: 'qr', n: 2 });
      life.kill();
      life = await launch();
      life.sdk.track('b');
      life.sdk.trackTimerStart('load');
      await life.advance(1500);
      life.sdk.trackTimerEnd('load', { kind: 'cold' });
      life.sdk.logout();
      life.sdk.clearAppRegister();
      life.sdk.track('c');
      await life.advance(60_000);
      const by = Object.fromEntries(collector.events().map((event) => [event.code, event]));
      assert.deepEqual([by.a.user_id, by.b.user_id, by.c.user_id], ['u1', 'u1', undefined]);
      assert.deepEqual(by.load.props, { kind: 'cold', duration_ms: 1500 });
      const last = collector.requests.find(({ batch }) => batch.events.some((event) => event.code === 'c'));
      assert.equal(last.batch.common, undefined);
      life.sdk.trackTimerEnd('load');
      assert.match(life.warnings.join(), /no timer named load/);
    });

    test('on hide everything is in the storage before it is sent', async () => {
      const life = await launch();
      life.context.App({});
      life.appOptions.onShow({});
      life.sdk.track('last_words');
      let stored = '';
      life.onRequest = () => (stored = [...phone.storage.values()].join());
      life.appOptions.onHide();
      assert.match(stored, /last_words/);
      assert.match(stored, /app_hide/);
      await life.settle();
      assert.deepEqual(codes(), ['app_show', 'last_words', 'app_hide']);
    });

    test('sessions end in the background and after idling', async () => {
      const life = await launch();
      life.context.App({});
      const session = () => {
        life.sdk.track('s');
        return life.advance(20_000).then(() => collector.events().at(-1).session);
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

    test('memory that grows under way damages nothing', async () => {
      const life = await launch({ queueBytes: 8 * 1024 * 1024, flushEvents: 100_000, flushIntervalMs: DAY });
      const text = (n) => `${n} 京东🚇é `.repeat(600);
      let sent = 0;
      for (let n = 0; n < 250; n++) {
        assert.equal(typeof life.sdk.track('big', { n, text: text(n), ['key' + n]: text(n).length }), 'string');
        if (n % 50 === 0) await life.advance(1);
      }
      life.sdk.flush((ledger) => (sent = ledger.acked));
      await life.advance(DAY);
      const events = collector.events();
      assert.equal(events.length, 250);
      events.forEach((event) => {
        const n = event.props.n;
        assert.deepEqual(event.props, { n, text: text(n), ['key' + n]: text(n).length });
      });
      assert.equal(sent, 250);
      assert.deepEqual(life.warnings, []);
    });

    test('a batch is zipped where the host can send bytes, else plain', async () => {
      const life = await launch();
      for (let n = 0; n < 40; n++) life.sdk.track('same_thing', { n });
      await life.advance(60_000);
      assert.equal(collector.events().length, 40);
      const zips = phone.build.platform === 'weapp';
      assert.ok(collector.requests.every((request) => request.zipped === zips && (request.headers['content-encoding'] === 'gzip') === zips));
    });

    test('a wall clock that jumps stops nothing', async () => {
      const life = await launch();
      for (const jump of [-DAY, 3 * DAY, -2 * DAY]) {
        life.sdk.track('tick');
        phone.wall += jump;
        await life.advance(60_000);
      }
      assert.deepEqual(collector.events().map((event) => event.seq), [1, 2, 3]);
    });

    test('instances in one app do not touch each other', async () => {
      const life = await launch();
      const second = life.sdk.createInstance();
      second.init({ server: collector.url, key: 'k2', device: { os: 'Other', model: 'M' }, platform: 'web' });
      await life.settle();
      life.sdk.track('one');
      second.track('two');
      await life.advance(60_000);
      const of = (code) => collector.requests.find(({ batch }) => batch.events[0].code === code);
      assert.notEqual(of('one').batch.install_id, of('two').batch.install_id);
      assert.deepEqual([of('one').headers['x-subway-key'], of('two').headers['x-subway-key']], ['k1', 'k2']);
      assert.equal(of('two').batch.device.os, 'Other');
      assert.equal(of('two').batch.host.platform, 'web');
      second.close();
      second.track('closed');
      life.sdk.track('three');
      await life.advance(60_000);
      assert.ok(codes().includes('three') && !codes().includes('closed'));
    });

    test('the network type follows the host', async () => {
      const life = await launch();
      life.onNetwork({ networkType: '4g' });
      life.sdk.track('a');
      await life.advance(60_000);
      assert.equal(collector.requests[0].batch.network, '4g');
    });
  });
}
