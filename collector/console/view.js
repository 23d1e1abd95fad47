// The numbers of one app: which range and interval, asking for them, tiles, charts and what to say when there are none.

import * as api from './api.js';
import { MetricChart, MAX_BARS } from './charts.js';
import { $, h, notice, setText } from './dom.js';
import { writeHash } from './state.js';
import { METRICS, number, Tiles } from './tiles.js';
import {
  addDays, bulkOf, dateIn, datesOf, daysBetween, FEW_DAYS, firstRange, instantOf, intervalFits, previousRange, rangeLabel, resolveRange,
  suggestInterval, zoneOffset,
} from './time.js';

/** Milliseconds between two silent refreshes that new events ask for, and without any. */
const NEWS_REFRESH_MS = 5_000;
const IDLE_REFRESH_MS = 60_000;
/** Milliseconds until numbers that could not be had are asked for again. */
const PROBLEM_RETRY_MS = 5_000;

export class View {
  #app = null;
  #view = { app: null, range: null, from: null, to: null, interval: null };
  #extent = { first: null, last: null };
  #request = null;
  #timer = null;
  #loadedAt = 0;
  /** Where nearly all events are, see `#findBulk`; undefined until somebody has looked. */
  #bulk = undefined;
  /** What the notice says, so that a refresh leaves it alone. */
  #notice = null;
  #tiles = new Tiles($('tiles'));
  #charts = new Map();
  #onRefused;

  /** `onRefused` sees a problem that means the token is no longer accepted. */
  constructor({ onRefused }) {
    this.#onRefused = onRefused;
    for (const metric of METRICS.filter(({ chart }) => chart)) this.#charts.set(metric.name, new MetricChart($('charts'), metric));
    $('ranges').addEventListener('change', (event) => this.#pickRange(event.target.value));
    $('intervals').addEventListener('change', (event) => this.#pickInterval(event.target.value));
    $('custom').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#applyCustom();
    });
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden && Date.now() - this.#loadedAt > IDLE_REFRESH_MS) this.refreshSoon();
    });
  }

  /** Opens an app. `wanted` is a view from the address; what it leaves open is chosen from the app's data. */
  show(app, wanted) {
    if (this.#app?.key !== app.key) this.#loadedAt = 0;
    this.#app = app;
    this.#view = { ...wanted, app: app.key };
    this.#bulk = undefined;
    this.#notice = null;
    this.#showZone();
    return this.load();
  }

  /** Which clocks are meant, and if the browser does not know them, which are shown instead. */
  #showZone() {
    const { timezone, zone } = this.#app;
    const offset = zoneOffset(zone, Date.now());
    const known = zone === timezone;
    setText($('zone'), known ? timezone : `${timezone}, shown in ${offset}`);
    $('zone').title = known ? `Days and hours of this app are those of ${timezone} (${offset})` : `This browser does not know the time zone ${timezone}`;
    setText($('foot-zone'), known ? `All times in ${timezone} (${offset})`
      : `This browser does not know the time zone ${timezone}: times are shown in ${offset}, the numbers are those of its days`);
  }

  stop() {
    clearTimeout(this.#timer);
    this.#request?.abort();
    this.#app = null;
  }

  /** New events arrived: the numbers follow shortly, without a flicker. */
  refreshSoon() {
    if (this.#app === null) return;
    this.#later(Math.max(1_000, NEWS_REFRESH_MS - (Date.now() - this.#loadedAt)));
  }

  #later(wait) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      if (!document.hidden) this.load({ quiet: true });
    }, wait);
  }

  /** Asks for everything that is shown. A newer call ends an older one. */
  async load({ quiet = false } = {}) {
    this.#request?.abort();
    clearTimeout(this.#timer);
    const request = new AbortController();
    this.#request = request;
    if (!quiet) {
      this.#tiles.loading();
      for (const chart of this.#charts.values()) chart.loading();
    }
    try {
      this.#extent = await api.extent(this.#app, request.signal);
      const now = Date.now();
      await this.#choose(now, quiet, request.signal);
      if (request.signal.aborted) return;
      const range = this.#settle(now);
      if (range === null) this.#showNothing();
      else await this.#loadRange(range, now, request.signal);
      if (request.signal.aborted) return;
      this.#loadedAt = Date.now();
      this.#later(IDLE_REFRESH_MS);
    } catch (error) {
      if (request.signal.aborted) return;
      if (!(error instanceof api.Problem)) throw error;
      if (error.status === 401) this.#onRefused(error);
      else this.#showProblem(error);
    }
  }

  /** Chooses the range if nobody did: the last week if it has events, else where nearly all of them are. */
  async #choose(now, quiet, signal) {
    const { zone } = this.#app;
    const view = this.#view;
    const open = view.range === null;
    if (open) view.range = firstRange(zone, this.#extent, now);
    if (view.range === null) {
      const { from, to } = resolveRange({ range: '7d' }, zone, this.#extent, now);
      const { total } = await api.metric(this.#app, 'events', { from, to, interval: 'total' }, signal);
      if (total > 0) view.range = '7d';
    }
    if ((view.range === null || view.range === 'all') && !(quiet && this.#bulk !== undefined)) this.#bulk = await this.#findBulk(now, signal);
    if (view.range !== null || signal.aborted) return;
    if (this.#bulk) Object.assign(view, { range: 'custom', from: this.#bulk.from, to: this.#bulk.to });
    else view.range = 'all';
  }

  /** The dates with nearly all events, both included: `{from, to, inside, total}`; null if they are about all there are. */
  async #findBulk(now, signal) {
    const { zone } = this.#app;
    const all = resolveRange({ range: 'all' }, zone, this.#extent, now);
    if (all === null || all.days <= FEW_DAYS) return null;
    let range = all;
    let bulk = null;
    for (const interval of ['year', 'month', 'day']) {
      const days = daysBetween(range.from, range.to);
      // The next finer one that fits would do the same work again.
      if (!intervalFits(interval, days) || (interval === 'year' && intervalFits('month', days))) continue;
      const { series } = await api.metric(this.#app, 'events', { from: range.from, to: range.to, interval }, signal);
      const found = bulkOf(series);
      if (found === null) return null;
      range = datesOf(series, found, zone, range);
      bulk = { from: range.from, to: addDays(range.to, -1), inside: found.inside, total: bulk?.total ?? found.total };
    }
    return bulk && daysBetween(range.from, range.to) * 4 <= all.days ? bulk : null;
  }

  /** Fills in what the view leaves open and shows it in the controls. Null: the app has no events at all. */
  #settle(now) {
    const view = this.#view;
    const range = resolveRange(view, this.#app.zone, this.#extent, now);
    const days = range?.days ?? 7;
    if (!view.interval || !intervalFits(view.interval, days)) view.interval = suggestInterval(days);
    this.#showControls(range, days);
    writeHash(view);
    return range;
  }

  #showControls(range, days) {
    const view = this.#view;
    for (const input of $('ranges').querySelectorAll('input')) input.checked = input.value === view.range;
    for (const input of $('intervals').querySelectorAll('input')) {
      input.checked = input.value === view.interval;
      input.disabled = !intervalFits(input.value, days);
      input.parentElement.title = input.disabled ? 'Too many bars for this range' : '';
    }
    $('custom').hidden = view.range !== 'custom';
    if (view.range === 'custom') {
      $('custom-from').value = view.from;
      $('custom-to').value = view.to;
    }
    setText($('range-title'), range ? rangeLabel(range.from, addDays(range.to, -1)) : 'No data yet');
    const { timezone, zone } = this.#app;
    const clocks = zone === timezone ? '' : `, shown in ${zoneOffset(zone, Date.now())}`;
    setText($('range-note'), range ? `${range.days === 1 ? '1 day' : `${number(range.days)} days`} by ${view.interval}${clocks}` : '\u00a0');
    document.title = `${this.#app.key} · Subway`;
  }

  async #loadRange(range, now, signal) {
    const { interval } = this.#view;
    const { zone } = this.#app;
    const ask = ({ name, chart }) => api.metric(this.#app, name, { from: range.from, to: range.to, interval: chart ? interval : 'total' }, signal);
    const answers = await Promise.all(METRICS.map(ask));
    if (signal.aborted) return;
    const before = await this.#before(range, now, signal);
    if (signal.aborted) return;
    METRICS.forEach(({ name }, index) => {
      this.#tiles.show(name, answers[index].total, before[index]);
      this.#charts.get(name)?.show(answers[index], interval, zone, now);
    });
    $('foot-note').hidden = dateIn(zone, now) >= range.to || answers[0].series.length > MAX_BARS;
    const events = answers[METRICS.findIndex(({ name }) => name === 'events')].total;
    this.#showEmptyRange(events === 0, range);
  }

  /** Totals of the period before; null where there is none or it cannot be had: a comparison is not worth an error. */
  async #before(range, now, signal) {
    const none = METRICS.map(() => null);
    const previous = previousRange(range, this.#app.zone, now);
    const firstDay = this.#extent.first && dateIn(this.#app.zone, instantOf(this.#extent.first));
    if (this.#view.range === 'all' || !firstDay || firstDay >= range.from) return none;
    const ask = ({ name, compare = true }) => (compare ? api.metric(this.#app, name, { ...previous, interval: 'total' }, signal) : null);
    try {
      return (await Promise.all(METRICS.map(ask))).map((answer) => answer?.total ?? null);
    } catch (error) {
      if (error instanceof api.Problem && error.status !== 401) return none;
      throw error;
    }
  }

  #showEmptyRange(empty, range) {
    const { first, last } = this.#extent;
    if (empty && (!first || !last)) {
      this.#showNothing();
      return;
    }
    const { zone } = this.#app;
    const days = (from, to) => rangeLabel(from, addDays(to, -1));
    if (empty) {
      const had = this.#bulk ? rangeLabel(this.#bulk.from, this.#bulk.to) : rangeLabel(dateIn(zone, instantOf(first)), dateIn(zone, instantOf(last)));
      this.#tell('info', `No events ${range.days === 1 ? 'on' : 'in'} ${days(range.from, range.to)}`, `This app has ${this.#bulk ? 'nearly all its data' : 'data'} from ${had}.`,
        { label: 'Show all data', run: () => this.#pickRange('all') });
      return;
    }
    this.#showStrays();
  }

  /** Says that a few events lie far from the others, where that explains what is shown. */
  #showStrays() {
    const [view, bulk] = [this.#view, this.#bulk];
    const here = bulk && view.range === 'custom' && view.from === bulk.from && view.to === bulk.to;
    if (!bulk || !(here || view.range === 'all')) {
      this.#tell(null);
      return;
    }
    const outside = bulk.total - bulk.inside;
    const { zone } = this.#app;
    const strays = `${number(outside)} of ${number(bulk.total)} events ${outside === 1 ? 'lies' : 'lie'} outside of these dates`;
    if (here) {
      const [first, last] = [this.#extent.first, this.#extent.last].map((time) => dateIn(zone, instantOf(time)));
      this.#tell('info', strays, `This app has data from ${rangeLabel(first, last)}.`, { label: 'Show all data', run: () => this.#pickRange('all') });
    } else {
      this.#tell('info', `Nearly all events are from ${rangeLabel(bulk.from, bulk.to)}`, `${strays}.`,
        { label: 'Show these dates', run: () => this.#showBulk() });
    }
  }

  #showBulk() {
    Object.assign(this.#view, { range: 'custom', from: this.#bulk.from, to: this.#bulk.to, interval: null });
    this.load();
  }

  /** Shows a notice, or none. One that says the same stays, with the place of whoever reads it. */
  #tell(kind, title, detail, action) {
    const text = kind === null ? '' : [kind, title, detail].join(' ');
    if (this.#notice === text) return;
    this.#notice = text;
    $('notice').replaceChildren(...(kind === null ? [] : [notice(kind, title, detail, action)]));
  }

  /** The app has no events: say how the first one is sent. */
  #showNothing() {
    $('foot-note').hidden = true;
    this.#tiles.blank();
    for (const chart of this.#charts.values()) chart.blank('No data yet');
    const box = notice('first', 'Waiting for the first event', 'Start the SDK with the address of this collector and the key of this app:');
    box.firstChild.append(h('pre', { class: 'json', tabindex: '0', 'aria-label': 'Example', text: this.#example() }));
    this.#notice = null;
    $('notice').replaceChildren(box);
  }

  #example() {
    const address = new URL('.', location.href).href.replace(/\/$/, '');
    return [
      "const subway = require('subway-miniprogram/jd');",
      '',
      `subway.init({ server: '${address}', key: ${JSON.stringify(this.#app.key)} });`,
      "subway.track('hello');",
    ].join('\n');
  }

  #showProblem(problem) {
    if (this.#loadedAt === 0) {
      this.#tiles.blank();
      for (const chart of this.#charts.values()) chart.blank('Not loaded');
    }
    for (const node of document.querySelectorAll('.loading')) node.classList.remove('loading');
    this.#tell('error', problem.title, problem.detail, { label: 'Try again', run: () => this.load() });
    const wait = problem.retryAfter === null ? PROBLEM_RETRY_MS : problem.retryAfter * 1_000;
    if (problem.status === 0 || problem.status === 429 || problem.status >= 500) this.#later(wait);
  }

  #pickRange(value) {
    const { zone } = this.#app;
    if (value === 'custom') {
      // What was just shown is the start of what is wanted next.
      const now = resolveRange(this.#view, zone, this.#extent, Date.now());
      const today = dateIn(zone, Date.now());
      Object.assign(this.#view, { from: now?.from ?? today, to: now ? addDays(now.to, -1) : today });
    }
    Object.assign(this.#view, { range: value, interval: null });
    setText($('custom-error'), '');
    this.load();
    if (value === 'custom') $('custom').hidden = false;
  }

  #applyCustom() {
    const [from, to] = [$('custom-from').value, $('custom-to').value];
    const wrong = !from || !to ? 'Enter both dates.' : from > to ? 'The first date is after the last.' : '';
    setText($('custom-error'), wrong);
    if (wrong) return;
    Object.assign(this.#view, { range: 'custom', from, to, interval: null });
    this.load();
  }

  #pickInterval(value) {
    this.#view.interval = value;
    this.load();
  }
}
