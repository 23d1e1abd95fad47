// What the tests send, and a second opinion on what it means: counted here with plain arithmetic, not by the collector.

import { randomUUID } from 'node:crypto';
import { event } from './collector.mjs';

const HOUR = 3_600_000;
/** Asia/Shanghai has no daylight saving since 1991. */
export const SHANGHAI = 8 * HOUR;

/** A text that would run, were it ever parsed as HTML. */
export const HOSTILE = '"><img src=x onerror="globalThis.hacked=1"><script>globalThis.hacked=2</script><svg onload=alert(1)>';

/**
 * Three days of May 2015 in Shanghai: 40 installs, views, clicks and sessions at times from a fixed generator.
 * Gives `[{install, events}]`.
 */
export function shopHistory() {
  let state = 20150517;
  const random = (below) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const begin = Date.UTC(2015, 4, 17) - SHANGHAI;
  return Array.from({ length: 40 }, () => {
    const firstHour = random(60);
    const events = Array.from({ length: 3 + random(12) }, (_, index) => {
      const time = begin + (firstHour + random(12)) * HOUR + random(3_600) * 1_000;
      const view = random(3) > 0;
      const more = { session: { id: randomUUID(), index: 1, event: 1 }, page: { path: `pages/${['index', 'goods', 'cart'][random(3)]}` } };
      return event(index + 1, view ? 'view' : 'click', view ? 'page_view' : 'tap', time, more);
    });
    return { install: randomUUID(), events };
  });
}

/** The last twelve days of an app that is in use now: `recent` events within five days, `older` ones twelve days ago. */
export function kioskHistory(now) {
  const at = (days, minutes) => now - days * 24 * HOUR - minutes * 60_000;
  const session = () => ({ session: { id: randomUUID(), index: 1, event: 1 } });
  const recent = [0, 1, 2, 3, 4, 5].flatMap((day) => [5, 4, 3].map((minutes, index) => event(100 + day * 10 + index, 'view', 'page_view', at(day, minutes), session())));
  const older = [1, 2].map((seq) => event(seq, 'view', 'page_view', at(12, seq), session()));
  return { install: randomUUID(), recent, older };
}

/** Two hundred views of three days of May 2015 in Shanghai, and two events whose clocks were wrong: of 1970, and of next year. */
export function farHistory(now) {
  const begin = Date.UTC(2015, 4, 17) - SHANGHAI;
  const views = Array.from({ length: 200 }, (_, index) => event(index + 1, 'view', 'page_view', begin + Math.floor(index / 3) * HOUR + index * 1_000));
  const strays = [event(201, 'view', 'page_view', 36 * HOUR), event(202, 'view', 'page_view', now + 300 * 24 * HOUR)];
  return { install: randomUUID(), views, strays };
}

const startOf = {
  hour: (time) => Math.floor((time + SHANGHAI) / HOUR) * HOUR - SHANGHAI,
  day: (time) => Math.floor((time + SHANGHAI) / (24 * HOUR)) * 24 * HOUR - SHANGHAI,
};

/** Every event with its install, the oldest first. */
function flat(history) {
  return history.flatMap(({ install, events }) => events.map((one) => ({ install, ...one }))).sort((a, b) => a.ts - b.ts);
}

/** The totals of all of it, as the tiles should show them. */
export function totalsOf(history) {
  const all = flat(history);
  const views = all.filter(({ theme }) => theme === 'view');
  const installs = new Set(all.map(({ install }) => install)).size;
  return {
    pv: views.length,
    uv: new Set(views.map(({ install }) => install)).size,
    new_users: installs,
    cumulative_users: installs,
    sessions: new Set(all.map(({ session }) => session.id)).size,
    events: all.length,
  };
}

/** The buckets that are not zero, `Map(start in ms -> value)`, of a metric by hour or day. */
export function bucketsOf(history, metric, interval) {
  const sets = new Map();
  const put = (time, what) => {
    const start = startOf[interval](time);
    if (!sets.has(start)) sets.set(start, new Set());
    sets.get(start).add(what);
  };
  const seen = new Set();
  for (const { install, theme, ts, id } of flat(history)) {
    if (metric === 'pv' && theme === 'view') put(ts, id);
    if (metric === 'uv' && theme === 'view') put(ts, install);
    if (metric === 'new_users' && !seen.has(install)) put(ts, install);
    seen.add(install);
  }
  return new Map([...sets].map(([start, set]) => [start, set.size]));
}
