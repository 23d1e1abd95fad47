// Days and hours in the app's timezone. Ranges are calendar dates; the collector turns them into instants.

const LOCALE = 'en-GB';
const DAY_MS = 86_400_000;

const formats = new Map();
function format(timeZone, options) {
  const key = timeZone + JSON.stringify(options);
  if (!formats.has(key)) formats.set(key, new Intl.DateTimeFormat(LOCALE, { timeZone, ...options }));
  return formats.get(key);
}

/**
 * What this browser takes for the zone `name`: the name itself, or where it does not know it the zone's present `offset`
 * (`+08:00`), or else UTC.
 */
export function browserZone(name, offset) {
  const [, sign, hours, minutes] = /^([+-])(\d\d):(\d\d)$/.exec(offset ?? '') ?? [];
  // The signs of these names are turned round; older browsers know them, newer ones offsets too.
  const whole = minutes === '00' ? `Etc/GMT${sign === '+' ? '-' : '+'}${Number(hours)}` : null;
  return [name, sign ? offset : null, whole].find((zone) => zone && isKnown(zone)) ?? 'UTC';
}

function isKnown(timeZone) {
  try {
    return Boolean(new Intl.DateTimeFormat(LOCALE, { timeZone }));
  } catch {
    return false;
  }
}

/** The wall clock at an instant: `{year, month, day, hour}` as numbers. */
function wall(timeZone, instant) {
  const parts = format(timeZone, { year: 'numeric', month: '2-digit', day: '2-digit', hour: '2-digit', hourCycle: 'h23' })
    .formatToParts(instant);
  const number = (type) => Number(parts.find((part) => part.type === type).value);
  return { year: number('year'), month: number('month'), day: number('day'), hour: number('hour') };
}

const pad = (number, width = 2) => String(number).padStart(width, '0');

/** The calendar date at an instant: `2015-05-17`. */
export function dateIn(timeZone, instant) {
  const { year, month, day } = wall(timeZone, instant);
  return `${pad(year, 4)}-${pad(month)}-${pad(day)}`;
}

/** A time of the API as milliseconds since the epoch: RFC 3339 or already milliseconds. */
export const instantOf = (time) => (typeof time === 'number' ? time : Date.parse(time));

const asUtc = (date) => Date.parse(`${date}T00:00:00Z`);
/** The last date that the collector's calendar has. */
const LAST_DATE = '9999-12-31';
export const addDays = (date, days) => new Date(Math.min(asUtc(date) + days * DAY_MS, asUtc(LAST_DATE))).toISOString().slice(0, 10);
/** Whole days from one date to another, `to` not included. */
export const daysBetween = (from, to) => Math.round((asUtc(to) - asUtc(from)) / DAY_MS);

/**
 * The dates of a view: `{from, to, days}`, `to` exclusive. Null for all data of an app that has none.
 * `extent` is `{first, last}` of the app's events.
 */
export function resolveRange(view, timeZone, extent, now) {
  const today = dateIn(timeZone, now);
  const span = (from, last) => ({ from, to: addDays(last, 1), days: daysBetween(from, last) + 1 });
  if (view.range === 'custom') return span(view.from, view.to);
  if (view.range === 'today') return span(today, today);
  if (view.range === '7d') return span(addDays(today, -6), today);
  if (view.range === '30d') return span(addDays(today, -29), today);
  if (!extent.first || !extent.last) return null;
  return span(dateIn(timeZone, instantOf(extent.first)), dateIn(timeZone, instantOf(extent.last)));
}

/** The range to open an app with, if its first and last event say so: the last week, all there is, or null: somebody has to look. */
export function firstRange(timeZone, extent, now) {
  if (!extent.last) return '7d';
  const today = dateIn(timeZone, now);
  const [first, last] = [extent.first, extent.last].map((time) => dateIn(timeZone, instantOf(time)));
  if (last > today || daysBetween(first, last) > FEW_DAYS) return last >= addDays(today, -6) && last <= today ? '7d' : null;
  return last >= addDays(today, -6) ? '7d' : 'all';
}

/** Days in which a stray event does no harm: a chart of them can be read. */
export const FEW_DAYS = 92;

/**
 * Events that may lie outside of the dates that an app is opened with, or is said to have its data in: one of a hundred,
 * and of some dozens two, because one clock that was wrong sends more than one event.
 */
const strays = (total) => Math.max(Math.floor(total / 100), total >= 20 ? 2 : 0);

/**
 * The shortest run of buckets that holds all events but the strays: `{first, last, inside, total}` with the buckets'
 * numbers. A single event of 1970, or of next year, does not stretch it. Null without events.
 */
export function bulkOf(series) {
  const total = series.reduce((sum, { value }) => sum + value, 0);
  if (total === 0) return null;
  const enough = total - strays(total);
  let best = null;
  let inside = 0;
  for (let first = 0, last = -1; first < series.length; first += 1) {
    while (inside < enough && last + 1 < series.length) inside += series[last += 1].value;
    if (inside < enough) break;
    if (!best || last - first < best.last - best.first) best = { first, last, inside, total };
    inside -= series[first].value;
  }
  return best;
}

/** The dates of the buckets `first` to `last`, both included; `to` exclusive, at most the range's. */
export function datesOf(series, { first, last }, timeZone, range) {
  const from = dateIn(timeZone, Date.parse(series[first].start));
  const next = last + 1 < series.length ? dateIn(timeZone, Date.parse(series[last + 1].start)) : range.to;
  return { from: from < range.from ? range.from : from, to: next > range.to ? range.to : next };
}

/** The same number of days just before a range; cut where a running day would be compared with a whole one. */
export function previousRange(range, timeZone, now) {
  const from = addDays(range.from, -range.days);
  const running = dateIn(timeZone, now) < range.to;
  return { from, to: running ? new Date(now - range.days * DAY_MS).toISOString() : range.from };
}

/** An interval is offered while it makes a chart that can be read. */
export function intervalFits(interval, days) {
  const most = { hour: 31, day: 1_100, week: 7 * 1_100, month: 30 * 1_100 }[interval];
  return most === undefined || days <= most;
}

export function suggestInterval(days) {
  if (days <= 3) return 'hour';
  if (days <= 92) return 'day';
  if (days <= 731) return 'week';
  return days <= 365 * 20 ? 'month' : 'year';
}

const dateOptions = { day: 'numeric', month: 'short', year: 'numeric' };

/** `17 – 19 May 2015` for a range of dates, `last` included. */
export function rangeLabel(from, last) {
  if (from === last) return format('UTC', { weekday: 'short', ...dateOptions }).format(asUtc(from));
  return format('UTC', dateOptions).formatRange(asUtc(from), asUtc(last));
}

/** The name of a bucket in a tooltip or a table. */
export function bucketLabel(start, interval, timeZone) {
  const instant = Date.parse(start);
  if (interval === 'year') return String(wall(timeZone, instant).year);
  if (interval === 'month') return format(timeZone, { month: 'long', year: 'numeric' }).format(instant);
  const date = dateIn(timeZone, instant);
  if (interval === 'week') return rangeLabel(date, addDays(date, 6));
  const day = format(timeZone, { weekday: 'short', ...dateOptions }).format(instant);
  if (interval === 'day') return day;
  return `${day}, ${clock(timeZone, instant, false)}`;
}

/** `18:04` or `18:04:31`. */
export function clock(timeZone, instant, seconds = true) {
  const options = { hour: '2-digit', minute: '2-digit', hourCycle: 'h23', ...(seconds ? { second: '2-digit' } : {}) };
  return format(timeZone, options).format(instant);
}

/** `17 May`, with the year when it is not the current one. */
export function shortDate(timeZone, instant, now) {
  const sameYear = wall(timeZone, instant).year === wall(timeZone, now).year;
  return format(timeZone, sameYear ? { day: 'numeric', month: 'short' } : dateOptions).format(instant);
}

/** `17 May 2015, 18:04:31` with the zone's name. */
export function fullTime(timeZone, instant) {
  return format(timeZone, { ...dateOptions, hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23', timeZoneName: 'short' })
    .format(instant);
}

/** `GMT+8` of a zone at an instant. */
export function zoneOffset(timeZone, instant) {
  const parts = format(timeZone, { timeZoneName: 'shortOffset' }).formatToParts(instant);
  return parts.find((part) => part.type === 'timeZoneName').value;
}

/**
 * The axis under a chart: for every bucket a label of one or two lines, or null where none fits.
 * `room` is how many labels may stand beside each other. The year is named where it is not the one of `now`.
 */
export function axisLabels(starts, interval, timeZone, room, now) {
  const instants = starts.map((start) => Date.parse(start));
  if (interval === 'hour') return hourAxis(instants, timeZone, room);
  const walls = instants.map((instant) => wall(timeZone, instant));
  const step = Math.max(1, Math.ceil(instants.length / room));
  let shownYear = wall(timeZone, now).year;
  return instants.map((instant, index) => {
    if (index % step !== 0) return null;
    const year = walls[index].year;
    if (interval === 'year') return [String(year)];
    const name = format(timeZone, interval === 'month' ? { month: 'short' } : { day: 'numeric', month: 'short' }).format(instant);
    const lines = year === shownYear ? [name] : [name, String(year)];
    shownYear = year;
    return lines;
  });
}

function hourAxis(instants, timeZone, room) {
  const walls = instants.map((instant) => wall(timeZone, instant));
  const newDay = walls.map(({ day }, index) => index === 0 || walls[index - 1].day !== day);
  const days = newDay.filter(Boolean).length;
  const date = (index) => format(timeZone, { day: 'numeric', month: 'short' }).format(instants[index]);
  const hours = [1, 2, 3, 6, 12].find((step) => instants.length / step <= room);
  if (hours) {
    return walls.map(({ hour }, index) => {
      if (newDay[index]) return [`${pad(hour)}:00`, date(index)];
      return hour % hours === 0 ? [`${pad(hour)}:00`] : null;
    });
  }
  const step = Math.max(1, Math.ceil(days / room));
  let seen = -1;
  return walls.map((_, index) => {
    if (!newDay[index]) return null;
    seen += 1;
    return seen % step === 0 ? [date(index)] : null;
  });
}
