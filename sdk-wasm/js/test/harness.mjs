// What the tests of every build share: a collector, a fresh phone for each test, and the app's usual first steps.

import { after, before, beforeEach } from 'node:test';

import { Collector } from '../testing/collector.mjs';
import { Phone } from '../testing/host.mjs';

/** One day, milliseconds. */
export const DAY = 24 * 3600 * 1000;

/** To be called inside a `describe`. `build` is one of host.mjs's BUILDS. */
export function harness(build) {
  const h = {
    build,
    collector: undefined,
    phone: undefined,
    init: (life, more) => life.sdk.init({ server: h.collector.url, key: 'k1', appVersion: '1.2.0', ...more }),
    codes: () => h.collector.events().map((event) => event.code),
    balances: ({ generated, acked, queued, dropped }) =>
      generated === acked + queued + Object.values(dropped).reduce((sum, count) => sum + count, 0),
    async launch(more, options) {
      const life = await h.phone.launch(options);
      h.init(life, more);
      await life.settle();
      return life;
    },
  };
  before(async () => (h.collector = await new Collector().start()));
  after(() => h.collector.stop());
  beforeEach(() => {
    h.phone = new Phone(build);
    h.collector.stored.clear();
    h.collector.requests = [];
    h.collector.faults = [];
  });
  return h;
}
