// What the core decides on hosts whose clocks and storages misbehave, or whose apps do, as an app meets it through the API.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { DAY, harness } from './harness.mjs';

/** Runs the tests on one of host.mjs's BUILDS. */
export function decisions(build) {
  describe(`decisions, ${build}`, () => {
    const h = harness(build);

    const sessions = () => h.collector.events().map((event) => [event.code, event.session.index]);

    test('an event of yesterday does not touch the session of today', async () => {
      const life = await h.launch();
      life.sdk.track('now1');
      life.sdk.track('imported', {}, { trueTs: h.phone.wall - DAY });
      life.sdk.track('now2');
      await life.advance(60_000);
      const of = (code) => h.collector.events().find((event) => event.code === code).session;
      assert.equal(of('now1').id, of('now2').id);
      assert.notEqual(of('imported').id, of('now1').id);
    });

    test('a computer that slept begins a new session, although its monotonic clock stood still', async () => {
      const life = await h.launch({}, { globals: { performance: { now: () => 1000 } } });
      life.sdk.track('evening');
      await life.settle();
      h.phone.wall += DAY / 3;
      life.sdk.track('morning');
      life.sdk.flush(() => {});
      await life.settle();
      assert.deepEqual(sessions(), [['evening', 1], ['morning', 2]]);
    });

    test('properties registered for every page while offline stay within the bounds of the queue', async () => {
      const queueBytes = 200_000;
      h.phone.network = 'offline';
      const life = await h.launch({ queueBytes });
      for (let n = 0; n < 300; n++) {
        life.sdk.registerApp({ page_data: 'x'.repeat(3000) + n });
        life.sdk.track('page', { n });
        await life.advance(1000);
      }
      assert.ok(h.phone.bytes() < 4 * queueBytes, `${h.phone.bytes()} bytes`);
      h.phone.network = 'ok';
      await life.advance(DAY);
      const ledger = life.sdk.getLedger();
      assert.ok(h.balances(ledger) && ledger.queued === 0, JSON.stringify(ledger));
      assert.ok(h.phone.bytes() < 20_000, `${h.phone.bytes()} bytes stay`);
      for (const { batch } of h.collector.requests) {
        for (const event of batch.events) assert.equal(batch.common.page_data, 'x'.repeat(3000) + event.props.n);
      }
    });

    test('a storage that is full still sends what it holds, and what comes meanwhile is not lost', async () => {
      const life = await h.launch();
      h.phone.network = 'offline';
      for (let n = 0; n < 20; n++) {
        life.sdk.track('kept', { n, text: 'x'.repeat(1000) });
        await life.advance(100);
      }
      h.phone.limit = h.phone.bytes() + 10;
      life.sdk.track('more', { text: 'x'.repeat(3000) });
      await life.advance(1000);
      h.phone.network = 'ok';
      await life.advance(DAY);
      assert.deepEqual(h.codes(), [...Array(20).fill('kept'), 'more']);
      assert.ok(life.warnings.filter((text) => /full/.test(text)).length <= 1, life.warnings.join());
    });

    test('a name that others would not expect is mentioned once, and recorded', async () => {
      const life = await h.launch();
      for (let n = 0; n < 3; n++) {
        life.sdk.track('Order Paid!', { n });
        life.sdk.track('支付成功', { n });
        life.sdk.track('order_paid', { n });
      }
      await life.advance(60_000);
      assert.equal(h.codes().length, 9);
      assert.equal(life.warnings.filter((text) => text.includes('Order Paid!')).length, 1, life.warnings.join());
      assert.equal(life.warnings.length, 2, life.warnings.join());
    });

    test('the end of a timer without a start is recorded without a duration, and mentioned', async () => {
      const life = await h.launch();
      life.sdk.trackTimerEnd('never_begun', { a: 1 });
      life.sdk.trackTimerStart('begun');
      await life.advance(700);
      life.sdk.trackTimerEnd('begun', { a: 2 });
      await life.advance(60_000);
      assert.deepEqual(h.collector.events().map(({ code, props }) => [code, props]), [['never_begun', { a: 1 }], ['begun', { a: 2, duration_ms: 700 }]]);
      assert.match(life.warnings.join(), /never_begun/);
      assert.ok(h.balances(life.sdk.getLedger()));
    });
  });
}
