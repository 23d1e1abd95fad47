// The console's calendar and its address, without a browser: days that have 23 or 25 hours, ranges, axes, links.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readHash } from '../state.js';
import {
  addDays, axisLabels, browserZone, bucketLabel, bulkOf, dateIn, datesOf, daysBetween, firstRange, intervalFits, previousRange, resolveRange,
  suggestInterval,
} from '../time.js';

const at = (text) => Date.parse(text);
const hours = (from, count) => Array.from({ length: count }, (_, index) => new Date(at(from) + index * 3_600_000).toISOString());
const NONE = { first: null, last: null };

test('a date is the one on the clocks of the app, not of the browser', () => {
  assert.equal(dateIn('Asia/Shanghai', at('2015-05-17T15:59:59Z')), '2015-05-17');
  assert.equal(dateIn('Asia/Shanghai', at('2015-05-17T16:00:00Z')), '2015-05-18');
  assert.equal(dateIn('America/New_York', at('2026-01-01T04:59:59Z')), '2025-12-31');
  assert.equal(dateIn('Asia/Kathmandu', at('2026-06-30T18:15:00Z')), '2026-07-01');
});

test('days are counted on the calendar, across leap days and changes of the clocks', () => {
  assert.equal(addDays('2024-02-28', 1), '2024-02-29');
  assert.equal(addDays('2026-03-01', -1), '2026-02-28');
  assert.equal(daysBetween('2026-03-28', '2026-03-30'), 2);
});

test('ranges end with today, their last day is part of them', () => {
  const now = at('2026-11-22T20:00:00Z');
  const range = (name, zone = 'UTC', extent = NONE) => resolveRange({ range: name, from: '2026-01-31', to: '2026-02-01' }, zone, extent, now);
  assert.deepEqual(range('today'), { from: '2026-11-22', to: '2026-11-23', days: 1 });
  assert.deepEqual(range('today', 'Asia/Shanghai'), { from: '2026-11-23', to: '2026-11-24', days: 1 });
  assert.deepEqual(range('7d'), { from: '2026-11-16', to: '2026-11-23', days: 7 });
  assert.deepEqual(range('30d'), { from: '2026-10-24', to: '2026-11-23', days: 30 });
  assert.deepEqual(range('custom'), { from: '2026-01-31', to: '2026-02-02', days: 2 });
  assert.equal(range('all'), null);
  const extent = { first: '2015-05-17T10:05:03.000Z', last: '2015-05-18T23:05:59.000Z' };
  assert.deepEqual(range('all', 'Asia/Shanghai', extent), { from: '2015-05-17', to: '2015-05-20', days: 3 });
});

test('an app opens on the last week if it has events there, else on all of them', () => {
  const now = at('2026-11-22T20:00:00Z');
  assert.equal(firstRange('UTC', NONE, now), '7d');
  assert.equal(firstRange('UTC', { first: '2015-01-01T00:00:00Z', last: '2026-11-16T00:00:00Z' }, now), '7d');
  assert.equal(firstRange('UTC', { first: '2026-10-01T00:00:00Z', last: '2026-11-15T23:59:59Z' }, now), 'all');
  assert.equal(firstRange('UTC', { first: '2015-01-01T00:00:00Z', last: '2026-11-15T23:59:59Z' }, now), null, 'years of it: somebody has to look');
  assert.equal(firstRange('UTC', { first: '2026-11-01T00:00:00Z', last: '2027-11-15T00:00:00Z' }, now), null, 'an event of next year says nothing of this week');
});

test('one event of 1970 and one of next year do not stretch where the data is', () => {
  const series = (values) => values.map((value, index) => ({ start: new Date(Date.UTC(1970, index, 1)).toISOString(), value }));
  const months = Array.from({ length: 700 }, (_, index) => (index === 0 || index === 699 ? 1 : index === 600 ? 250 : index === 601 ? 150 : 0));
  const bulk = bulkOf(series(months));
  assert.deepEqual(bulk, { first: 600, last: 601, inside: 400, total: 402 });
  const range = { from: '1970-01-01', to: '2028-05-01' };
  assert.deepEqual(datesOf(series(months), bulk, 'UTC', range), { from: '2020-01-01', to: '2020-03-01' });
  assert.deepEqual(bulkOf(series([0, 5, 0])), { first: 1, last: 1, inside: 5, total: 5 });
  assert.deepEqual(bulkOf(series([1, 1, 1])), { first: 0, last: 2, inside: 3, total: 3 });
  assert.deepEqual(datesOf(series([1, 1, 1]), { first: 0, last: 2 }, 'UTC', { from: '1970-01-20', to: '1970-03-02' }), { from: '1970-01-20', to: '1970-03-02' });
  assert.equal(bulkOf(series([0, 0])), null);
  assert.equal(bulkOf([]), null);
});

test('the last day of the calendar is a day', () => {
  assert.equal(addDays('9999-12-31', 1), '9999-12-31');
  const extent = { first: '1970-01-01T00:00:00Z', last: '9999-12-31T23:59:59.999Z' };
  const range = resolveRange({ range: 'all' }, 'UTC', extent, at('2026-11-22T00:00:00Z'));
  assert.equal(range.from, '1970-01-01');
  assert.equal(suggestInterval(range.days), 'year');
});

test('a zone that the browser does not know is shown by its offset, or in UTC', () => {
  assert.equal(browserZone('Asia/Shanghai', '+08:00'), 'Asia/Shanghai');
  const shown = browserZone('Mars/Olympus', '+08:00');
  assert.equal(dateIn(shown, at('2015-05-17T16:00:00Z')), '2015-05-18');
  assert.equal(dateIn(browserZone('Mars/Olympus', '-03:00'), at('2015-05-17T02:59:00Z')), '2015-05-16');
  assert.equal(browserZone('Mars/Olympus', undefined), 'UTC');
  assert.equal(browserZone('Mars/Olympus', 'nonsense'), 'UTC');
});

test('a running day is compared with as much of the day before', () => {
  const now = at('2026-11-22T08:30:00Z');
  assert.deepEqual(previousRange({ from: '2026-11-22', to: '2026-11-23', days: 1 }, 'UTC', now), { from: '2026-11-21', to: '2026-11-21T08:30:00.000Z' });
  assert.deepEqual(previousRange({ from: '2026-11-10', to: '2026-11-12', days: 2 }, 'UTC', now), { from: '2026-11-08', to: '2026-11-10' });
});

test('the interval offered first always fits', () => {
  for (const days of [1, 3, 4, 31, 92, 93, 731, 732, 5_000, 21_000, 3_000_000]) assert.ok(intervalFits(suggestInterval(days), days), `${days} days`);
  assert.equal(intervalFits('hour', 32), false);
  assert.equal(intervalFits('day', 1_101), false);
});

test('buckets are named on the clocks of the app', () => {
  assert.match(bucketLabel('2015-05-17T10:00:00Z', 'hour', 'Asia/Shanghai'), /Sun,? 17 May 2015, 18:00$/);
  assert.match(bucketLabel('2015-05-16T16:00:00Z', 'day', 'Asia/Shanghai'), /Sun,? 17 May 2015$/);
  assert.match(bucketLabel('2015-05-10T16:00:00Z', 'week', 'Asia/Shanghai'), /^11\s?–\s?17 May 2015$/);
  assert.equal(bucketLabel('2015-04-30T16:00:00Z', 'month', 'Asia/Shanghai'), 'May 2015');
});

test('the axis of hours marks every midnight, on days of 23 and 25 hours too', () => {
  const now = at('2026-11-22T00:00:00Z');
  for (const [from, count] of [['2026-03-27T23:00:00Z', 71], ['2026-10-23T22:00:00Z', 73]]) {
    const labels = axisLabels(hours(from, count), 'hour', 'Europe/Berlin', 12, now);
    const midnights = labels.filter((label) => label?.length === 2);
    assert.equal(midnights.length, 3);
    assert.ok(midnights.every(([clock]) => clock === '00:00'), JSON.stringify(midnights));
    assert.ok(labels.filter(Boolean).length <= 14);
  }
});

test('the axis never holds more labels than there is room for', () => {
  const now = at('2026-11-22T00:00:00Z');
  for (const days of [1, 2, 3, 7, 14, 31]) {
    for (const room of [4, 6, 12, 20]) {
      const labels = axisLabels(hours('2026-06-01T00:00:00Z', days * 24), 'hour', 'UTC', room, now).filter(Boolean);
      assert.ok(labels.length >= 1 && labels.length <= room, `${days} days in ${room}: ${labels.length}`);
    }
  }
  const months = Array.from({ length: 30 }, (_, index) => new Date(Date.UTC(2024, index, 1)).toISOString());
  const labels = axisLabels(months, 'month', 'UTC', 40, now);
  assert.deepEqual(labels[0], ['Jan', '2024']);
  assert.deepEqual(labels[1], ['Feb']);
  assert.deepEqual(labels[12], ['Jan', '2025']);
});

test('a link is read with suspicion', () => {
  const nothing = { app: null, range: null, from: null, to: null, interval: null };
  assert.deepEqual(readHash(''), nothing);
  assert.deepEqual(readHash('#app=a%22b&range=7d&interval=day'), { ...nothing, app: 'a"b', range: '7d', interval: 'day' });
  assert.deepEqual(readHash('#range=__proto__&interval=second'), nothing);
  assert.deepEqual(readHash('#range=custom&from=2026-02-01&to=2026-02-03'), { ...nothing, range: 'custom', from: '2026-02-01', to: '2026-02-03' });
  for (const wrong of ['from=2026-02-03&to=2026-02-01', 'from=2026-13-01&to=2026-13-02', 'from=2026-02-30&to=2026-03-05', 'from=2026-02-01']) {
    assert.deepEqual(readHash(`#range=custom&${wrong}`), nothing, wrong);
  }
});
