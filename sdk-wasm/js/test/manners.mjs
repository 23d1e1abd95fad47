// How the SDK behaves towards the app around it: what the app hands over stays usable, nothing is recorded twice or by
// mistake, every refused event is in the ledger, and no promise stays open.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { harness } from './harness.mjs';

const tap = () => ({ type: 'tap', currentTarget: { dataset: {} } });
/** Plain objects: what comes out of the realm has prototypes of its own. */
const plain = (value) => JSON.parse(JSON.stringify(value));
const EMPTY = { generated: 0, acked: 0, queued: 0, dropped: {} };
const NOT_READY = { ok: false, reason: 'not_ready', ...EMPTY };

/** Runs the tests on one of host.mjs's BUILDS. */
export function manners(build) {
  describe(`manners, ${build}`, () => {
    const h = harness(build);

    test('functions and classes that an app keeps on its objects stay what they are', async () => {
      const life = await h.launch();
      const given = life.realm(`
        var dayjs = function (n) { return n + 1; };
        dayjs.extend = function () { return 'extended'; };
        class Store { constructor() { this.items = []; } add(one) { this.items.push(one); return this; } }
        class Empty {}
        class Derived extends Empty {}
        function Old() { this.made = true; }
        Old.prototype.get = function () { return this.made; };
        function Bare() { this.bare = true; }
        function Child() {}
        Child.prototype = Object.create(Old.prototype);
        ({ dayjs, Store, Empty, Derived, Old, Bare, Child, Map })`);
      const pageOptions = { ...given };
      const methods = { ...given };
      const shared = { ...given };
      life.context.App({ ...given });
      life.context.Page(pageOptions);
      life.context.Component({ methods });
      life.context.Behavior = undefined;
      life.sdk.wrappers({ quietly: (work) => work }).Behavior(() => {})({ methods: shared });
      for (const holder of [life.appOptions, pageOptions, methods, shared]) {
        assert.equal(holder.dayjs(1), 2);
        assert.equal(holder.dayjs.extend(), 'extended');
        assert.deepEqual(plain(new holder.Store().add(3).items), [3]);
        for (const name of ['Empty', 'Derived', 'Old', 'Bare', 'Child', 'Map']) {
          const one = new holder[name]();
          assert.ok(one instanceof given[name], `new ${name} is one`);
          assert.ok(one instanceof holder[name], `new ${name} is one of what the app sees`);
        }
        assert.equal(new holder.Old().get(), true);
        assert.equal(new holder.Bare().bare, true);
      }
      assert.deepEqual(life.warnings, []);
    });

    test('function expressions, arrows and methods are wrapped all the same', async () => {
      const life = await h.launch();
      const options = life.realm(`({
        onLoad: function () { this.loaded = true; },
        expression: function () { return 'e'; },
        arrow: () => 'a',
        method() { return 'm'; },
        async later() { return 'l'; },
      })`);
      const page = life.openPage('pages/a', options, { q: '1' });
      assert.equal(page.loaded, true);
      assert.deepEqual([page.expression(tap()), page.arrow(tap()), page.method(tap()), await page.later(tap())], ['e', 'a', 'm', 'l']);
      await life.advance(60_000);
      const clicked = h.collector.events().filter((event) => event.code === 'mp_click');
      assert.deepEqual(clicked.map((event) => event.props.method), ['expression', 'arrow', 'method', 'later']);
      assert.deepEqual(h.collector.events()[0].props, { query: { q: '1' } });
    });

    test('a component that is no page records no view and does not end the page around it', async () => {
      const life = await h.launch();
      const seen = [];
      life.openPage('pages/shop', {});
      life.context.Component({ methods: { onShow() { seen.push('show'); }, onHide() { seen.push('hide'); }, onShareAppMessage: () => ({ title: 'T' }) } });
      const popup = Object.assign({ is: 'components/popup' }, life.componentOptions.methods);
      popup.onLoad({ of: 'popup' });
      popup.onShow();
      popup.onShareAppMessage({});
      popup.onHide();
      popup.onUnload();
      life.sdk.track('bought');
      await life.advance(60_000);
      assert.deepEqual(seen, ['show', 'hide']);
      assert.deepEqual(h.collector.events().map((event) => [event.code, event.page.path]), [['page_view', 'pages/shop'], ['bought', 'pages/shop']]);
      assert.ok(!('__subwayQuery' in popup));
    });

    test('what two pages or components share is recorded once', async () => {
      const life = await h.launch();
      const shared = { go: () => 'gone' };
      life.context.Component({ methods: shared });
      life.context.Component({ methods: shared });
      assert.equal(life.componentOptions.methods.go(tap()), 'gone');
      const options = { buy() {}, onShareAppMessage: () => ({}) };
      life.context.Page(options);
      const page = life.openPage('pages/twice', options);
      page.buy(tap());
      page.onShareAppMessage({});
      page.onHide();
      const app = { onLaunch() {} };
      life.context.App(app);
      life.context.App(app);
      app.onLaunch({});
      await life.advance(60_000);
      assert.deepEqual(h.codes(), ['mp_click', 'page_view', 'mp_click', 'page_share', 'page_leave', 'app_launch']);
    });

    test('a handler that was wrapped for taps still becomes a lifecycle handler elsewhere', async () => {
      const life = await h.launch();
      life.context.App({ onLoad() {}, onShow() {} });
      life.openPage('pages/a', { onLoad: life.appOptions.onLoad }, { from: 'app' });
      await life.advance(60_000);
      assert.deepEqual(h.collector.events()[0].props, { query: { from: 'app' } });
    });

    test('one tap is one click, whichever handlers pass it on', async () => {
      const life = await h.launch();
      const page = life.openPage('pages/a', {
        a(event) { this.b(event); this.a2(event); },
        a2(event) { return event; },
        b(event) { life.sdk.track('inside'); return event; },
        again(event, depth) { if (!depth) this.again(event, 1); },
      });
      const event = tap();
      page.a(event);
      page.b(event);
      page.again(tap());
      page.b(tap());
      await life.advance(60_000);
      const events = h.collector.events().map(({ code, props }) => (props && props.method) || code);
      assert.deepEqual(events, ['page_view', 'inside', 'a', 'inside', 'again', 'inside', 'b']);
    });

    test('who is no user is refused, and the user stays', async () => {
      const life = await h.launch();
      life.sdk.identify('u1');
      const wrong = [undefined, null, '', {}, [], NaN, Infinity, true, () => {}, Symbol('s')];
      for (const user of wrong) {
        life.sdk.identify(user);
        life.sdk.login(user);
      }
      life.sdk.track('a');
      life.sdk.login(42);
      life.sdk.track('b');
      life.sdk.identify(0);
      life.sdk.track('c');
      await life.advance(60_000);
      assert.deepEqual(h.collector.events().map((event) => event.user_id), ['u1', '42', '0']);
      assert.equal(life.warnings.filter((text) => /a user is a non-empty string or a finite number/.test(text)).length, 2 * wrong.length);
    });

    test('every refused event is in the ledger', async () => {
      const life = await h.phone.launch();
      const cycle = {};
      cycle.cycle = cycle;
      life.sdk.track('early', cycle);
      h.init(life);
      await life.settle();
      life.sdk.track('circular', cycle);
      life.sdk.track('unprintable', { get n() { throw new TypeError('Do not know how to serialize a BigInt'); } });
      life.sdk.track('big', { n: 10n });
      life.sdk.track('theme', {}, { theme: 'nonsense' });
      life.sdk.track('symbol', {}, { theme: Symbol('s') });
      life.sdk.track(Object.create(null));
      life.sdk.track('page', {}, { page: { get path() { throw new Error('no path'); } } });
      life.sdk.track('bad\ncode');
      for (const name of [undefined, null, 7, {}, ['a'], '', 'nul\0', 'x'.repeat(129)]) life.sdk.track(name);
      life.sdk.trackTimerStart('timed');
      life.sdk.trackTimerEnd('timed', cycle);
      life.sdk.trackTimerEnd('timed', 'no object');
      life.sdk.track('good');
      await life.advance(60_000);
      assert.deepEqual(h.codes(), ['good']);
      assert.deepEqual(plain(life.sdk.getLedger()), { generated: 20, acked: 1, queued: 0, dropped: { invalid: 19 } });
      assert.equal(life.warnings.length, 19);
    });

    test('flush ends before init, without a core, while another has the storage and when the instance is closed', async () => {
      const before = await h.phone.launch();
      let told;
      before.sdk.flush((ledger) => (told = plain(ledger)));
      assert.deepEqual(told, NOT_READY);
      assert.deepEqual(plain(await before.sdk.flush()), NOT_READY);

      const adapter = before.sdk.miniAdapter('jd', before.context[h.phone.build.global]);
      adapter.storage = { keys() { throw Object.assign(new Error('taken'), { inUse: true }); } };
      const blocked = before.sdk.createInstance(adapter);
      h.init({ sdk: blocked });
      const promise = blocked.flush();
      await before.advance(6000);
      assert.deepEqual(plain(await promise), NOT_READY);

      const life = await h.launch();
      h.phone.network = 'deaf';
      life.sdk.track('waits');
      const open = life.sdk.flush();
      life.sdk.close();
      assert.deepEqual(plain(await open), { ok: false, reason: 'closed', generated: 1, acked: 0, queued: 1, dropped: {} });
      assert.deepEqual(plain(await life.sdk.flush()), { ...NOT_READY, reason: 'closed' });
    });

    test('flush waits for a core that is on its way', async () => {
      const life = await h.phone.launch();
      h.init(life);
      life.sdk.track('a');
      let told;
      life.sdk.flush((ledger) => (told = plain(ledger)));
      await life.settle();
      assert.deepEqual(told, { ok: true, generated: 1, acked: 1, queued: 0, dropped: {} });
    });

    // mini.js loads its core; the others hold it.
    const loads = build !== 'mini' ? () => {} : test;
    loads('flush ends when the core cannot be loaded, for every instance that waits for it', async () => {
      const life = await h.phone.launch({ globals: { WXWebAssembly: { instantiate: () => Promise.reject(new Error('no such file')) } } });
      const other = life.sdk.createInstance();
      h.init(life);
      h.init({ sdk: other }, { storagePrefix: 'other.' });
      const both = [life.sdk.flush(), other.flush()];
      assert.deepEqual(plain(await Promise.all(both)), [NOT_READY, NOT_READY]);
      assert.deepEqual(plain(await life.sdk.flush()), NOT_READY);
      assert.equal(life.warnings.filter((text) => /the core cannot be loaded: no such file/.test(text)).length, 2);
    });

    loads('flush ends when the core never comes', async () => {
      const life = await h.phone.launch({ globals: { WXWebAssembly: { instantiate: () => ({ then() {} }) } } });
      h.init(life);
      life.sdk.track('a');
      let told;
      life.sdk.flush((result) => (told = plain(result)));
      await life.advance(31_000);
      assert.deepEqual(told, NOT_READY);
      life.sdk.close();
      assert.match(life.warnings.join(), /1 calls were lost: the SDK never became ready/);
    });

    test('without a host every call is there, does nothing and says so once', async () => {
      const full = (await h.phone.launch()).sdk;
      const life = await h.phone.launch({ globals: { [h.phone.build.global]: undefined } });
      const sdk = life.sdk;
      assert.deepEqual(Object.keys(sdk).sort(), Object.keys(full).sort());
      h.init(life);
      assert.equal(sdk.track('a'), undefined);
      assert.deepEqual([sdk.getDeviceId(), sdk.getConsent(), plain(sdk.getLedger())], ['', 'unknown', EMPTY]);
      assert.deepEqual(plain(await sdk.flush()), NOT_READY);
      const names = Object.keys(full).filter((name) => !['createInstance', 'miniAdapter', 'wrappers'].includes(name));
      for (const name of names) assert.doesNotThrow(() => sdk[name](), name);
      assert.equal(life.warnings.length, 1);
      assert.match(life.warnings[0], /no mini-program/);
      const further = sdk.createInstance();
      assert.equal(further.track('a'), undefined);
      assert.equal(life.context.App({ onLaunch() {} }), 'app made');
      assert.equal(h.collector.requests.length, 0);
    });
  });
}
