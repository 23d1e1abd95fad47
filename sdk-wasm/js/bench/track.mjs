// Times track() on the caller, per call, in both builds in simulated hosts. Prints one JSON line; microseconds.
//
// Rounds of calls on fresh instances; each round has its own quantiles, and the median round is reported together with
// the calmest: on a machine that does other things too, the difference between the two is the other things.

import { Phone } from '../testing/host.mjs';

const ROUNDS = 15;
const CALLS = 2000;
/** Calls in one turn of the host; between turns the SDK persists, which is not the caller's time. */
const TURN = 10;
const PROPS = { sku: 'item-1234567', name: '京东 tea', price: 12.5, count: 3, tags: ['a', 'b'], source: { page: 'list', index: 7 } };
const PAGE = { path: 'pages/item/item', title: 'Item', referrer: 'pages/index/index' };

async function round(life, number) {
  const sdk = life.sdk.createInstance();
  sdk.init({ server: 'http://127.0.0.1:1', key: 'bench' + number });
  await life.settle();
  const took = new Float64Array(CALLS);
  for (let n = 0; n < CALLS; n++) {
    const start = process.hrtime.bigint();
    const id = sdk.track('cart_add', PROPS, { page: PAGE });
    took[n] = Number(process.hrtime.bigint() - start) / 1000;
    if (typeof id !== 'string') throw new Error('an event was refused');
    if (n % TURN === TURN - 1) await life.advance(1);
  }
  sdk.close();
  life.phone.storage.clear();
  took.sort();
  return { p50: took[CALLS * 0.5], p99: took[CALLS * 0.99] };
}

async function time(build) {
  const phone = new Phone(build);
  phone.network = 'offline';
  const life = await phone.launch();
  const rounds = [];
  // The first round warms the compiler up.
  for (let number = 0; number <= ROUNDS; number++) rounds.push(await round(life, number));
  const sorted = (name) => rounds.slice(1).map((one) => Math.round(one[name] * 10) / 10).sort((a, b) => a - b);
  const [p50, p99] = [sorted('p50'), sorted('p99')];
  const middle = ROUNDS >> 1;
  return { calls: ROUNDS * CALLS, p50_us: p50[middle], p99_us: p99[middle], calmest_p50_us: p50[0], calmest_p99_us: p99[0] };
}

console.log(JSON.stringify({ jd: await time('jd'), wasm: await time('mini') }));
