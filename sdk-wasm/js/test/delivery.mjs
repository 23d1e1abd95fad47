// What every build must deliver from a mini-program host, whatever goes wrong on the way.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { refusal } from '../testing/collector.mjs';
import { DAY, harness } from './harness.mjs';
import { Phone } from '../testing/host.mjs';

const unavailable = () => [503, { 'retry-after': '1' }, ''];

/** Runs the tests on one of host.mjs's BUILDS. */
export function delivery(build) {
  describe(`delivery, ${build}`, () => {
    const h = harness(build);

    test('offline events survive a restart and arrive in order, once', async () => {
      h.phone.network = 'offline';
      let life = await h.launch();
      const install = life.sdk.getDeviceId();
      for (let n = 0; n < 30; n++) {
        life.sdk.track('n' + n);
        await life.advance(1);
      }
      life.kill();
      life = await h.launch();
      assert.equal(life.sdk.getDeviceId(), install);
      assert.equal(life.sdk.getLedger().queued, 30);
      h.phone.network = 'ok';
      await life.advance(DAY);
      assert.deepEqual(h.codes(), Array.from({ length: 30 }, (_, n) => 'n' + n));
      assert.deepEqual(h.collector.events().map((event) => event.seq), Array.from({ length: 30 }, (_, n) => n + 1));
    });

    test('an answer that was lost leads to the same batch again, and to no second event', async () => {
      h.phone.network = 'deaf';
      let life = await h.launch();
      life.sdk.track('a');
      life.sdk.track('b');
      await life.advance(15_000);
      life.sdk.track('c');
      life.kill();
      h.phone.network = 'ok';
      life = await h.launch();
      await life.advance(DAY);
      const firsts = h.collector.requests.filter(({ batch }) => batch.events[0].code === 'a');
      assert.ok(firsts.length >= 2);
      assert.equal(new Set(firsts.map(({ batch }) => batch.batch_id)).size, 1);
      assert.equal(new Set(firsts.map(({ batch }) => JSON.stringify(batch.events))).size, 1);
      assert.deepEqual(h.codes().slice(0, 2), ['a', 'b']);
      assert.ok(h.balances(life.sdk.getLedger()));
    });

    test('killed at any change of the storage, no event of an earlier turn is lost and none doubled', async () => {
      for (const kind of ['kill', 'tear', 'after', 'fail']) {
        let reached = true;
        for (let at = 0; reached; at++) {
          h.phone = new Phone(build);
          h.phone.fault = { at, kind };
          h.collector.stored.clear();
          let life = await h.launch({ flushEvents: 4 });
          const safe = [];
          for (let n = 0; n < 12; n++) {
            const id = life.sdk.track('turn', { n });
            await life.advance(1);
            if (life.dead) life = await h.launch({ flushEvents: 4 });
            else if (id) safe.push(id);
          }
          reached = h.phone.changes > at;
          await life.advance(DAY);
          for (const id of safe) assert.ok(h.collector.stored.has(id), `${kind} at ${at} lost an event`);
          const seqs = h.collector.events().map((event) => event.install_id + event.seq);
          assert.equal(new Set(seqs).size, seqs.length, `${kind} at ${at} gave a number twice`);
          const ledger = life.sdk.getLedger();
          assert.ok(h.balances(ledger) && ledger.queued === 0, `${kind} at ${at}: ${JSON.stringify(ledger)}`);
        }
      }
    });

    test('only a receipt ends the waiting', async () => {
      const life = await h.launch();
      h.collector.faults = [
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
      assert.deepEqual(h.codes(), ['a']);
      assert.equal(h.collector.requests.length, 8);
      assert.equal(new Set(h.collector.requests.map(({ batch }) => batch.batch_id)).size, 1);
      assert.match(life.warnings.join(), /unknown key/);
    });

    test('Retry-After is obeyed, as seconds and as a date', async () => {
      for (const header of [() => '120', () => new Date(h.phone.wall + 120_000).toUTCString()]) {
        const life = await h.launch({ storagePrefix: 'p' + Math.random() });
        h.collector.requests = [];
        h.collector.faults = [() => [503, { 'retry-after': header() }, '']];
        life.sdk.track('a');
        life.sdk.flush(() => {});
        await life.advance(118_000);
        assert.equal(h.collector.requests.length, 1);
        await life.advance(300_000);
        assert.equal(h.collector.requests.length, 2);
      }
    });

    test('a refused batch is halved until the event to blame is alone', async () => {
      const life = await h.launch();
      const poisonous = (batch) => (batch.events.some((event) => event.code === 'poison') ? refusal(400, 'invalid_field') : null);
      h.collector.faults = Array.from({ length: 50 }, () => poisonous);
      for (let n = 0; n < 9; n++) life.sdk.track(n === 5 ? 'poison' : 'good', { n });
      await life.advance(DAY);
      assert.equal(h.codes().length, 8);
      assert.deepEqual({ ...life.sdk.getLedger(), dropped: { ...life.sdk.getLedger().dropped } }, { generated: 9, acked: 8, queued: 0, dropped: { poison: 1 } });
    });

    test('a 400 or 413 of somebody on the way costs no event', async () => {
      const pages = ['', '<html><h1>Bad Request</h1></html>', '{"code":"invalid_field","status":400}'];
      for (const status of [400, 413]) {
        for (const page of pages) {
          const life = await h.launch({ storagePrefix: 'p' + Math.random() });
          h.collector.requests = [];
          h.collector.stored.clear();
          let inTheWay = true;
          h.collector.faults = Array.from({ length: 500 }, () => () => (inTheWay ? [status, {}, page] : null));
          for (let n = 0; n < 9; n++) life.sdk.track('n' + n);
          await life.advance(3_600_000);
          assert.ok(h.collector.requests.length < 60, String(h.collector.requests.length));
          inTheWay = false;
          await life.advance(DAY);
          assert.deepEqual(h.codes().sort(), Array.from({ length: 9 }, (_, n) => 'n' + n), `${status} ${page}`);
          assert.deepEqual(Object.keys(life.sdk.getLedger().dropped), [], `${status} ${page}`);
        }
      }
    });

    test('without consent nothing is stored or sent; a refusal wipes', async () => {
      let life = await h.launch({ consentRequired: true });
      life.sdk.track('before');
      life.context.App({});
      life.appOptions.onShow();
      await life.advance(60_000);
      assert.equal(h.phone.storage.size, 0);
      assert.equal(life.requests, 0);
      assert.equal(life.sdk.getConsent(), 'unknown');
      life.sdk.setConsent(true);
      await life.advance(60_000);
      assert.deepEqual(h.codes(), ['before', 'app_show']);
      h.phone.network = 'offline';
      const install = life.sdk.getDeviceId();
      life.sdk.identify('secret-user');
      life.sdk.track('secret_event');
      await life.advance(1);
      life.sdk.setConsent(false);
      await life.advance(1);
      const left = [...h.phone.storage.values()].join();
      assert.ok(!/secret/.test(left) && !left.includes(install), left);
      assert.equal(life.sdk.track('after'), undefined);
      life.kill();
      h.phone.network = 'ok';
      life = await h.launch({ consentRequired: true });
      assert.equal(life.sdk.getConsent(), 'denied');
      await life.advance(60_000);
      assert.equal(h.collector.events().length, 2);
    });

    test('on hide everything is in the storage before it is sent', async () => {
      const life = await h.launch();
      life.context.App({});
      life.appOptions.onShow({});
      life.sdk.track('last_words');
      let stored = '';
      life.onRequest = () => (stored = [...h.phone.storage.values()].join());
      life.appOptions.onHide();
      assert.match(stored, /last_words/);
      assert.match(stored, /app_hide/);
      await life.settle();
      assert.deepEqual(h.codes(), ['app_show', 'last_words', 'app_hide']);
    });

    test('memory that grows under way damages nothing', async () => {
      const life = await h.launch({ queueBytes: 8 * 1024 * 1024, flushEvents: 100_000, flushIntervalMs: DAY });
      const text = (n) => `${n} 京东🚇é `.repeat(600);
      let sent = 0;
      for (let n = 0; n < 250; n++) {
        assert.equal(typeof life.sdk.track('big', { n, text: text(n), ['key' + n]: text(n).length }), 'string');
        if (n % 50 === 0) await life.advance(1);
      }
      life.sdk.flush((ledger) => (sent = ledger.acked));
      await life.advance(DAY);
      const events = h.collector.events();
      assert.equal(events.length, 250);
      events.forEach((event) => {
        const n = event.props.n;
        assert.deepEqual(event.props, { n, text: text(n), ['key' + n]: text(n).length });
      });
      assert.equal(sent, 250);
      assert.deepEqual(life.warnings, []);
    });

    test('a batch is zipped where the host can send bytes, else plain', async () => {
      const life = await h.launch();
      for (let n = 0; n < 40; n++) life.sdk.track('same_thing', { n });
      await life.advance(60_000);
      assert.equal(h.collector.events().length, 40);
      const zips = h.phone.build.platform === 'weapp';
      assert.ok(h.collector.requests.every((request) => request.zipped === zips && (request.headers['content-encoding'] === 'gzip') === zips));
    });

    test('a wall clock that jumps stops nothing', async () => {
      const life = await h.launch();
      for (const jump of [-DAY, 3 * DAY, -2 * DAY]) {
        life.sdk.track('tick');
        h.phone.wall += jump;
        await life.advance(60_000);
      }
      assert.deepEqual(h.collector.events().map((event) => event.seq), [1, 2, 3]);
    });

    test('instances in one app do not touch each other', async () => {
      const life = await h.launch();
      const second = life.sdk.createInstance();
      second.init({ server: h.collector.url, key: 'k2', device: { os: 'Other', model: 'M' }, platform: 'web' });
      await life.settle();
      life.sdk.track('one');
      second.track('two');
      await life.advance(60_000);
      const of = (code) => h.collector.requests.find(({ batch }) => batch.events[0].code === code);
      assert.notEqual(of('one').batch.install_id, of('two').batch.install_id);
      assert.deepEqual([of('one').headers['x-subway-key'], of('two').headers['x-subway-key']], ['k1', 'k2']);
      assert.equal(of('two').batch.device.os, 'Other');
      assert.equal(of('two').batch.host.platform, 'web');
      second.close();
      second.track('closed');
      life.sdk.track('three');
      await life.advance(60_000);
      assert.ok(h.codes().includes('three') && !h.codes().includes('closed'));
    });
  });
}
