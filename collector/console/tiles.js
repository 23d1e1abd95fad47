// The six totals above the charts, each with its change against the same number of days before.

import { h, setText } from './dom.js';

/** The metrics of the page in their order. `chart` marks those that have one; `color` names a CSS variable. */
export const METRICS = [
  { name: 'pv', title: 'Page views', short: 'PV', help: 'View events', chart: true, color: '--pv' },
  { name: 'uv', title: 'Unique visitors', short: 'UV', help: 'Installs with a view', chart: true, color: '--uv' },
  { name: 'new_users', title: 'New users', help: 'Installs first seen', chart: true, color: '--new' },
  { name: 'cumulative_users', title: 'Cumulative users', help: 'Installs to date', compare: false },
  { name: 'sessions', title: 'Sessions', help: 'Distinct sessions' },
  { name: 'events', title: 'Events', help: 'Every theme' },
];

const whole = new Intl.NumberFormat('en');
const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 });
const percent = new Intl.NumberFormat('en', { style: 'percent', maximumFractionDigits: 0, signDisplay: 'exceptZero' });

export const number = (value) => whole.format(value);
/** Short enough for an axis; exact below ten thousand. */
export const axisNumber = (value) => (Math.abs(value) < 10_000 ? whole.format(value) : compact.format(value));

export class Tiles {
  #tiles = new Map();

  constructor(list) {
    for (const metric of METRICS) {
      const value = h('span', { class: 'tile-number', 'data-value': '' });
      const change = h('span', { class: 'tile-change' });
      const tile = h('div', { class: 'tile loading', 'data-metric': metric.name },
        h('dt', { class: 'tile-title' },
          metric.color ? h('span', { class: `key ${metric.color.slice(2)}`, 'aria-hidden': 'true' }) : null, metric.title),
        h('dd', { class: 'tile-value' }, value, change),
        h('dd', { class: 'tile-help', text: metric.help }));
      list.append(tile);
      this.#tiles.set(metric.name, { tile, value, change });
    }
  }

  loading() {
    for (const { tile } of this.#tiles.values()) tile.classList.add('loading');
  }

  /** Without figures: after an error or for an app without events. */
  blank() {
    for (const { tile, value, change } of this.#tiles.values()) {
      tile.classList.remove('loading');
      setText(value, '–');
      value.dataset.value = '';
      change.hidden = true;
    }
  }

  /** `before` is the total of the period before, or null where there is nothing to compare with. */
  show(name, total, before) {
    const { tile, value, change } = this.#tiles.get(name);
    tile.classList.remove('loading');
    setText(value, number(total));
    value.dataset.value = String(total);
    change.hidden = !before;
    if (!before) return;
    const ratio = total / before - 1;
    const direction = Math.round(ratio * 100) === 0 ? 'same' : ratio > 0 ? 'up' : 'down';
    change.className = `tile-change ${direction}`;
    setText(change, ratio > 9.99 ? '×' + number(Math.round(total / before)) : percent.format(ratio));
    change.title = `${number(before)} in the period before`;
    change.append(h('span', { class: 'vh', text: ` against ${number(before)} in the period before` }));
  }
}
