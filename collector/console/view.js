// The numbers of one app: which range and interval, asking for them, tiles, charts and what to say when there are none.

import * as api from './api.js';
import { MetricChart, MOST_BARS } from './charts.js';
import { $, h, notice, setText } from './dom.js';
import { writeHash } from './state.js';
import { METRICS, Tiles } from './tiles.js';
import { addDays, dateIn, firstRange, instantOf, intervalFits, previousRange, rangeLabel, resolveRange, suggestInterval, zoneOffset } from './time.js';

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
    const offset = zoneOffset(app.timezone, Date.now());
    setText($('zone'), app.timezone);
    $('zone').title = `Days and hours of this app are those of ${app.timezone} (${offset})`;
    setText($('foot-zone'), `All times in ${app.timezone} (${offset})`);
    return this.load();
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

  /** Fills in what the view leaves open and shows it in the controls. Null: the app has no events at all. */
  #settle(now) {
    const view = this.#view;
    const zone = this.#app.timezone;
    view.range ??= firstRange(zone, this.#extent, now);
    const range = resolveRange(view, zone, this.#extent, now);
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
    setText($('range-note'), range ? `${range.days === 1 ? '1 day' : `${range.days} days`} by ${view.interval}` : '\u00a0');
    document.title = `${this.#app.key} · Subway`;
  }

  async #loadRange(range, now, signal) {
    const { interval } = this.#view;
    const zone = this.#app.timezone;
    const ask = ({ name, chart }) => api.metric(this.#app, name, { from: range.from, to: range.to, interval: chart ? interval : 'total' }, signal);
    const answers = await Promise.all(METRICS.map(ask));
    if (signal.aborted) return;
    const before = await this.#before(range, now, signal);
    if (signal.aborted) return;
    METRICS.forEach(({ name }, index) => {
      this.#tiles.show(name, answers[index].total, before[index]);
      this.#charts.get(name)?.show(answers[index], interval, zone, now);
    });
    $('foot-note').hidden = dateIn(zone, now) >= range.to || answers[0].series.length > MOST_BARS;
    const events = answers[METRICS.findIndex(({ name }) => name === 'events')].total;
    this.#showEmptyRange(events === 0, range);
  }

  /** Totals of the period before; null where there is none or it cannot be had: a comparison is not worth an error. */
  async #before(range, now, signal) {
    const none = METRICS.map(() => null);
    const previous = previousRange(range, this.#app.timezone, now);
    const firstDay = this.#extent.first && dateIn(this.#app.timezone, instantOf(this.#extent.first));
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
    if (!empty) {
      $('notice').replaceChildren();
      return;
    }
    const { first, last } = this.#extent;
    if (!first || !last) {
      this.#showNothing();
      return;
    }
    const zone = this.#app.timezone;
    const had = rangeLabel(dateIn(zone, instantOf(first)), dateIn(zone, instantOf(last)));
    $('notice').replaceChildren(notice('info', `No events ${range.days === 1 ? 'on' : 'in'} ${rangeLabel(range.from, addDays(range.to, -1))}`, `This app has data from ${had}.`,
      { label: 'Show all data', run: () => this.#pickRange('all') }));
  }

  /** The app has no events: say how the first one is sent. */
  #showNothing() {
    $('foot-note').hidden = true;
    this.#tiles.blank();
    for (const chart of this.#charts.values()) chart.blank('No data yet');
    const box = notice('first', 'Waiting for the first event', 'Start the SDK with the address of this collector and the key of this app:');
    box.firstChild.append(h('pre', { class: 'json', tabindex: '0', 'aria-label': 'Example', text: this.#example() }));
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
    $('notice').replaceChildren(notice('error', problem.title, problem.detail, { label: 'Try again', run: () => this.load() }));
    const wait = problem.retryAfter === null ? PROBLEM_RETRY_MS : problem.retryAfter * 1_000;
    if (problem.status === 0 || problem.status === 429 || problem.status >= 500) this.#later(wait);
  }

  #pickRange(value) {
    const zone = this.#app.timezone;
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
