// The live list: asks for the newest events every few seconds while the page is visible, keeps what is opened open.

import * as api from './api.js';
import { $, h, setText } from './dom.js';
import { stringify } from './json.js';
import { clock, dateIn, fullTime, instantOf, shortDate } from './time.js';

/** Events in the list, and how often they are asked for, in milliseconds. Failures wait longer, up to the last. */
const LIMIT = 50;
const POLL_MS = 3_000;
const SLOWEST_MS = 30_000;
/** The collector's rule for event codes: up to 128 bytes of text without control characters. A filter that cannot match is not sent. */
const CODE_BYTES = 128;
const isCode = (text) => !/\p{Cc}/u.test(text) && new TextEncoder().encode(text).length <= CODE_BYTES;

export class LiveEvents {
  #app = null;
  #code = '';
  #paused = false;
  #timer = null;
  #request = null;
  #failures = 0;
  #rows = new Map();
  #codes = new Set();
  #first = true;
  #onNewEvents;
  #onProblem;

  /** `onNewEvents` runs when events appeared that were not there before; `onProblem` sees a refused token. */
  constructor({ onNewEvents, onProblem }) {
    this.#onNewEvents = onNewEvents;
    this.#onProblem = onProblem;
    $('live-pause').addEventListener('click', () => this.#setPaused(!this.#paused));
    let typing = null;
    $('live-code').addEventListener('input', () => {
      clearTimeout(typing);
      typing = setTimeout(() => this.#filter(), 250);
    });
    document.addEventListener('visibilitychange', () => this.#schedule(0));
  }

  show(app) {
    this.#app = app;
    this.#codes.clear();
    $('live-codes').replaceChildren();
    $('live-code').value = '';
    this.#code = '';
    this.#restart();
  }

  stop() {
    this.#app = null;
    clearTimeout(this.#timer);
    this.#request?.abort();
    this.#clear();
  }

  #clear() {
    this.#rows.clear();
    $('live-list').replaceChildren();
    $('live-empty').hidden = true;
    this.#first = true;
    this.#failures = 0;
  }

  #restart() {
    this.#clear();
    this.#status('wait', 'Loading');
    this.#schedule(0, true);
  }

  #filter() {
    const code = $('live-code').value.trim();
    if (code === this.#code) return;
    this.#code = code;
    $('live-code').setAttribute('aria-invalid', String(!isCode(code)));
    this.#restart();
  }

  #setPaused(paused) {
    this.#paused = paused;
    $('live-pause').setAttribute('aria-pressed', String(paused));
    setText($('live-pause'), paused ? 'Resume' : 'Pause');
    if (paused) {
      clearTimeout(this.#timer);
      this.#request?.abort();
      this.#status('off', 'Paused');
    } else {
      this.#schedule(0);
    }
  }

  /** `once` asks even while paused: the list of another app or filter is wanted then too. */
  #schedule(wait, once = false) {
    clearTimeout(this.#timer);
    this.#request?.abort();
    if (this.#app === null || document.hidden || (this.#paused && !once)) return;
    this.#timer = setTimeout(() => this.#poll(), wait);
  }

  async #poll() {
    const request = new AbortController();
    this.#request = request;
    try {
      const impossible = !isCode(this.#code);
      const events = impossible ? [] : await api.events(this.#app, { limit: LIMIT, code: this.#code }, request.signal);
      if (request.signal.aborted) return;
      this.#failures = 0;
      this.#merge(events);
      this.#status(this.#paused ? 'off' : 'on', this.#paused ? 'Paused' : `Updated ${clock(this.#app.zone, Date.now())}`);
      this.#schedule(POLL_MS);
    } catch (error) {
      if (request.signal.aborted) return;
      if (!(error instanceof api.Problem)) throw error;
      this.#failures += 1;
      this.#status('bad', error.title);
      if (error.status === 401) {
        this.#onProblem(error);
        return;
      }
      const wait = Math.min(POLL_MS * 2 ** this.#failures, SLOWEST_MS);
      this.#schedule(error.retryAfter === null ? wait : Math.max(wait, error.retryAfter * 1_000));
    }
  }

  #status(kind, text) {
    $('live-dot').className = `dot ${kind}`;
    setText($('live-status'), text);
  }

  #merge(events) {
    const list = $('live-list');
    const fresh = events.filter((event) => !this.#rows.has(event.event_id));
    const listed = new Set(events.map((event) => event.event_id));
    for (const [id, row] of this.#rows) {
      // A row that someone reads stays until it is closed.
      if (listed.has(id) || row.querySelector('[aria-expanded="true"]')) continue;
      row.remove();
      this.#rows.delete(id);
    }
    for (const event of fresh) this.#rows.set(event.event_id, this.#row(event, !this.#first));
    let place = list.firstElementChild;
    for (const event of events) {
      const row = this.#rows.get(event.event_id);
      if (row === place) place = place.nextElementSibling;
      else list.insertBefore(row, place);
    }
    this.#showEmpty(events.length === 0 && this.#rows.size === 0);
    this.#learnCodes(fresh);
    if (fresh.length > 0 && !this.#first) {
      setText($('live-news'), fresh.length === 1 ? `New event: ${fresh[0].code}` : `${fresh.length} new events`);
      this.#onNewEvents();
    }
    this.#first = false;
  }

  #showEmpty(empty) {
    const box = $('live-empty');
    box.hidden = !empty;
    if (empty) setText(box, this.#code ? `No event with the code “${this.#code}”.` : 'No events yet. They appear here as they arrive.');
  }

  #learnCodes(events) {
    for (const { code } of events) {
      if (this.#codes.has(code) || this.#codes.size >= 200) continue;
      this.#codes.add(code);
      $('live-codes').append(h('option', { value: code }));
    }
  }

  #row(event, isNew) {
    const { zone } = this.#app;
    const at = instantOf(event.event_time);
    const now = Date.now();
    const sameDay = dateIn(zone, at) === dateIn(zone, now);
    const id = `event-${event.event_id}`;
    const details = h('div', { class: 'event-details', id, hidden: true });
    const text = (value) => (value === null || value === undefined ? '' : String(value));
    const cell = (name, value, title = value) => h('span', { class: `event-${name}`, text: text(value), title: text(title) || null });
    const button = h('button', { class: 'event', type: 'button', 'aria-expanded': 'false', 'aria-controls': id },
      h('span', { class: 'event-time' },
        h('time', { datetime: new Date(at).toISOString(), title: fullTime(zone, at), text: clock(zone, at) }),
        h('span', { class: 'event-date', text: sameDay ? 'today' : shortDate(zone, at, now) })),
      h('span', { class: 'event-theme' }, h('span', { class: 'badge', text: text(event.theme) })),
      cell('code', event.code),
      cell('page', event.page_path || event.page_title, [event.page_title, event.page_path].filter(Boolean).join(' · ')),
      cell('platform', [event.platform, event.os].filter(Boolean).join(' · ')),
      // The end of a UUIDv7: its beginning is the time, alike for installs of one hour.
      cell('install', text(event.install_id).slice(-8), event.install_id),
      h('span', { class: 'chevron', 'aria-hidden': 'true' }));
    button.addEventListener('click', () => toggle(button, details, event));
    return h('li', { class: isNew ? 'new' : '', 'data-event': event.event_id }, button, details);
  }
}

function toggle(button, details, event) {
  const open = button.getAttribute('aria-expanded') !== 'true';
  button.setAttribute('aria-expanded', String(open));
  details.hidden = !open;
  // The JSON is built when it is first asked for: most rows are never opened.
  if (open && details.childElementCount === 0) details.append(...jsonOf(event));
}

function jsonOf(event) {
  const json = stringify(event);
  const copy = h('button', { class: 'button small', type: 'button', text: 'Copy JSON' });
  copy.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(json);
      setText(copy, 'Copied');
    } catch {
      setText(copy, 'Not allowed here');
    }
    setTimeout(() => setText(copy, 'Copy JSON'), 1_500);
  });
  return [h('pre', { class: 'json', tabindex: '0', 'aria-label': 'The event as JSON', text: json }), copy];
}
