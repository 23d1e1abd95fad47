// What the SDK does on hosts whose parts do not work: storages that throw, requests without an answer, addresses that are
// none.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { harness } from './harness.mjs';

const plain = (value) => JSON.parse(JSON.stringify(value));
const broken = () => {
  throw new Error('no storage here');
};
/** What a storage may refuse to do, always. */
const STORAGES = {
  everything: { get: broken, set: broken, remove: broken, keys: broken },
  'to list': { keys: broken },
  'to read': { get: broken },
  'to write': { set: broken },
  'to write, for want of room': {
    set() {
      throw { errMsg: 'setStorageSync:fail exceed max size' };
    },
  },
};

/** Runs the tests on one of host.mjs's BUILDS. */
export function faults(build) {
  describe(`faults, ${build}`, () => {
    const h = harness(build);

    /** An instance of its own whose storage is `parts` over a storage that works. */
    async function launchOn(parts, more) {
      const life = await h.phone.launch();
      const adapter = life.sdk.miniAdapter('jd', life.context[h.phone.build.global]);
      adapter.storage = Object.assign({}, adapter.storage, parts);
      const sdk = life.sdk.createInstance(adapter);
      const warnings = [];
      sdk.init({ server: h.collector.url, key: 'k1', onWarning: (text) => warnings.push(text), ...more });
      await life.settle();
      return { life, sdk, warnings };
    }

    for (const [what, parts] of Object.entries(STORAGES)) {
      test(`a storage that always refuses ${what} costs one warning and no event`, async () => {
        // Something is there to be read, so that reading matters.
        if (what === 'to read') (await h.launch()).sdk.close();
        const { life, sdk, warnings } = await launchOn(parts);
        for (let n = 0; n < 5; n++) {
          sdk.track('n' + n);
          await life.advance(20_000);
        }
        assert.deepEqual(h.codes(), ['n0', 'n1', 'n2', 'n3', 'n4']);
        assert.equal(sdk.getLedger().acked, 5);
        let result;
        sdk.flush((told) => (result = told));
        assert.equal(result.ok, true);
        assert.equal(warnings.length, 1, warnings.join());
        assert.match(warnings[0], /the storage does not work \(.+\): events are kept in memory/);
      });
    }

    test('a storage that fails now and then is not given up', async () => {
      let fails = 1;
      const once = (work) => function (...args) {
        if (fails-- > 0) broken();
        return work.apply(this, args);
      };
      for (const name of ['set', 'get']) {
        h.phone.storage.clear();
        if (name === 'get') (await h.launch()).sdk.close();
        const life = await h.phone.launch();
        const adapter = life.sdk.miniAdapter('jd', life.context[h.phone.build.global]);
        fails = 1;
        const { sdk, warnings } = await launchOn({ [name]: once(adapter.storage[name]) });
        sdk.track('kept');
        await life.advance(1);
        assert.match([...h.phone.storage.values()].join(), /"install"/);
        assert.deepEqual(warnings, []);
        sdk.close();
      }
    });

    test('a storage that breaks under way is complained of once, and is used again when it works', async () => {
      let works = true;
      const life = await h.phone.launch();
      const adapter = life.sdk.miniAdapter('jd', life.context[h.phone.build.global]);
      const { set } = adapter.storage;
      const { life: own, sdk, warnings } = await launchOn({ set: (key, value) => (works ? set(key, value) : broken()) });
      sdk.track('before');
      await own.advance(60_000);
      works = false;
      sdk.track('while');
      await own.advance(120_000);
      assert.ok(warnings.length <= 1, warnings.join());
      works = true;
      await own.advance(60_000);
      assert.deepEqual(h.codes(), ['before', 'while']);
      assert.equal(sdk.getLedger().queued, 0);
    });

    test('a request of which the host says nothing ends the flush, and its answer still counts', async () => {
      const life = await h.phone.launch();
      const adapter = life.sdk.miniAdapter('jd', life.context[h.phone.build.global]);
      const { request } = adapter;
      const late = [];
      adapter.request = (...args) => late.push(args);
      const sdk = life.sdk.createInstance(adapter);
      h.init({ sdk });
      await life.settle();
      sdk.track('a');
      let result;
      sdk.flush((told) => (result = plain(told)));
      await life.advance(54_000);
      assert.equal(result, undefined);
      await life.advance(2_000);
      assert.deepEqual(result, { ok: false, reason: 'no_answer', generated: 1, acked: 0, queued: 1, dropped: {} });
      request(...late[0]);
      await life.settle();
      assert.deepEqual(plain(sdk.getLedger()), { generated: 1, acked: 1, queued: 0, dropped: {} });
    });

    test('an address may be a URL object; what is none is refused by name, and init may be called again', async () => {
      const life = await h.phone.launch();
      const wrong = [
        {}, [], 1, true, 'collect.example.com', '//c.example.com', '/path', 'ftp://c.example.com', 'http://', 'https://?x', 'http://:80', 'https://c.example.com/?a=1',
        'https://c.example.com#x', 'https://u:p@c.example.com', 'https://c.example .com', 'javascript:alert(1)',
      ];
      for (const server of wrong) {
        const warnings = [];
        life.sdk.init({ server, key: 'k', onWarning: (text) => warnings.push(text) });
        assert.equal(warnings.length, 1, String(server));
        assert.match(warnings[0], /^init: `server` must be an http\(s\) address/, String(server));
        assert.ok(warnings[0].includes(String(server)), warnings[0]);
      }
      life.sdk.track('a');
      life.sdk.init({ server: new URL(h.collector.url), key: 'k' });
      await life.settle();
      await life.advance(60_000);
      assert.deepEqual(h.codes(), ['a']);
      assert.equal(h.collector.requests[0].url, '/v1/events');
    });

    test('a path of the address stays before that of the wire', async () => {
      const life = await h.phone.launch();
      life.sdk.init({ server: h.collector.url + '/behind/proxy//', key: 'k' });
      await life.settle();
      life.sdk.track('a');
      await life.advance(60_000);
      assert.equal(h.collector.requests[0].url, '/behind/proxy/v1/events');
    });

    test('seeds of randomness reach the core with all their bits', async () => {
      // Two lives that differ in one bit of what the crypto source gave make other IDs; without one they do so by chance.
      const ids = new Set();
      const bytes = (bit) => ({ getRandomValues: (array) => array.map((_, at) => (at === bit >> 3 ? 1 << (bit & 7) : 0)) });
      const fixed = { Math: Object.assign(Object.create(Math), { random: () => 0.5 }) };
      for (let bit = 0; bit < 256; bit++) {
        h.phone = new h.phone.constructor(build);
        const life = await h.launch({}, { globals: { ...fixed, crypto: bytes(bit) } });
        ids.add(life.sdk.getDeviceId().slice(14));
      }
      assert.equal(ids.size, 256);
      for (let n = 0; n < 50; n++) {
        h.phone = new h.phone.constructor(build);
        ids.add((await h.launch()).sdk.getDeviceId().slice(14));
      }
      assert.equal(ids.size, 306);
    });
  });
}
