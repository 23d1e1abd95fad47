// The charts, each with a table that says the same. Chart.js draws; this file decides axes, words and colours.

import { h, setText } from './dom.js';
import { axisNumber, number } from './tiles.js';
import { axisLabels, bucketLabel } from './time.js';

/** More buckets than this become a line: bars would be thinner than the gaps between them. */
export const MAX_BARS = 100;
/** Pixels that a label under the axis needs. */
const LABEL_WIDTH = 58;

const calm = matchMedia('(prefers-reduced-motion: reduce)');
const dark = matchMedia('(prefers-color-scheme: dark)');
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const withAlpha = (hex, alpha) => hex + Math.round(alpha * 255).toString(16).padStart(2, '0');

export class MetricChart {
  #metric;
  #chart = null;
  #data = null;
  #labels = { width: -1, list: [] };

  constructor(parent, metric) {
    this.#metric = metric;
    this.canvas = h('canvas', { role: 'img', 'aria-label': metric.title });
    this.total = h('span', { class: 'card-total' });
    this.message = h('p', { class: 'chart-message', hidden: true });
    this.rows = h('tbody');
    this.caption = h('caption', { class: 'vh' });
    const unit = h('th', { scope: 'col', text: 'Time' });
    this.table = h('div', { class: 'chart-table', tabindex: '0', role: 'region', 'aria-label': `${metric.title} as a table`, hidden: true },
      h('table', {}, this.caption, h('thead', {}, h('tr', {}, unit, h('th', { scope: 'col', text: metric.title }))), this.rows));
    this.toggle = h('button', { class: 'button small', type: 'button', 'aria-pressed': 'false', 'aria-label': `Show ${metric.title} as a table`,
      text: 'Table', onclick: () => this.#flip() });
    this.card = h('article', { class: 'card chart loading', 'data-metric': metric.name },
      h('header', { class: 'card-head' },
        h('div', { class: 'card-titles' },
          h('h2', {}, h('span', { class: `key ${metric.color.slice(2)}`, 'aria-hidden': 'true' }), metric.title, metric.short ? h('abbr', { class: 'muted', text: metric.short }) : null),
          h('p', { class: 'muted small', text: metric.help })),
        h('div', { class: 'card-side' }, this.total, this.toggle)),
      h('div', { class: 'chart-body' }, this.canvas, this.message, this.table));
    parent.append(this.card);
    dark.addEventListener('change', () => this.#draw());
  }

  loading() {
    this.card.classList.add('loading');
  }

  /** Nothing to draw; the words stand where the chart would be. */
  blank(text) {
    this.card.classList.remove('loading');
    this.#data = null;
    this.#chart?.destroy();
    this.#chart = null;
    setText(this.total, '');
    setText(this.message, text);
    this.message.hidden = false;
    this.canvas.hidden = true;
    this.rows.replaceChildren();
    this.toggle.disabled = true;
    this.canvas.setAttribute('aria-label', `${this.#metric.title}: ${text}`);
  }

  /** `answer` is the collector's `{series, total}`; `now` says which bucket is still running. */
  show(answer, interval, timeZone, now) {
    const { series, total } = answer;
    const running = runningBucket(series, interval, now);
    this.#data = { series, total, interval, timeZone, running };
    this.#labels.width = -1;
    this.card.classList.remove('loading');
    this.message.hidden = true;
    this.canvas.hidden = false;
    this.toggle.disabled = false;
    setText(this.total, number(total));
    this.#describe();
    this.#fillTable();
    this.#draw();
  }

  #flip() {
    const asTable = this.table.hidden;
    this.table.hidden = !asTable;
    this.card.classList.toggle('as-table', asTable);
    this.toggle.setAttribute('aria-pressed', String(asTable));
  }

  #name(index) {
    const { series, interval, timeZone, running } = this.#data;
    const label = bucketLabel(series[index].start, interval, timeZone);
    return index === running ? `${label} (so far)` : label;
  }

  #describe() {
    const { series, total, interval } = this.#data;
    const top = series.reduce((best, point, index) => (best === -1 || point.value > series[best].value ? index : best), -1);
    const peak = total > 0 && top >= 0 ? ` Highest: ${number(series[top].value)}, ${this.#name(top)}.` : '';
    this.canvas.setAttribute('aria-label', `${this.#metric.title} by ${interval}. Total ${number(total)}.${peak}`);
    setText(this.caption, `${this.#metric.title} by ${interval}`);
  }

  #fillTable() {
    const { series } = this.#data;
    const cells = [...this.rows.querySelectorAll('td')];
    const same = cells.length === series.length && cells.every((cell, index) => cell.dataset.start === series[index].start);
    if (same && cells[0]?.dataset.interval === this.#data.interval) {
      // The usual refresh: whoever reads the table keeps the place.
      cells.forEach((cell, index) => {
        setText(cell, number(series[index].value));
        setText(cell.previousSibling, this.#name(index));
      });
      return;
    }
    const rows = series.map((point, index) => h('tr', {},
      h('th', { scope: 'row', text: this.#name(index) }),
      h('td', { text: number(point.value), 'data-start': point.start, 'data-interval': this.#data.interval })));
    this.rows.replaceChildren(...rows);
  }

  #tick(index) {
    const { series, interval, timeZone } = this.#data;
    const width = this.#chart?.width ?? this.canvas.clientWidth;
    if (this.#labels.width !== width) {
      const room = Math.max(2, Math.floor((width - 50) / LABEL_WIDTH));
      this.#labels = { width, list: axisLabels(series.map((point) => point.start), interval, timeZone, room, Date.now()) };
    }
    return this.#labels.list[index];
  }

  #draw() {
    if (this.#data === null) return;
    const { Chart } = globalThis;
    const config = { type: this.#type(), data: this.#dataset(), options: this.#options() };
    // A chart cannot change its type; the usual case, new numbers of the same kind, keeps it and its tooltip.
    if (this.#chart && this.#chart.config.type === config.type) {
      this.#chart.data = config.data;
      this.#chart.options = config.options;
      this.#chart.update('none');
    } else {
      this.#chart?.destroy();
      this.#chart = new Chart(this.canvas, config);
    }
  }

  #type() {
    return this.#data.series.length > MAX_BARS ? 'line' : 'bar';
  }

  #dataset() {
    const { series, running } = this.#data;
    const color = css(this.#metric.color);
    // A line through hours that are still to come would say that nothing happened in them.
    const ahead = (index) => running >= 0 && index > running && this.#type() === 'line';
    const values = series.map((point, index) => (ahead(index) ? null : point.value));
    const soft = withAlpha(color, 0.45);
    const bars = {
      backgroundColor: values.map((_, index) => (index === running ? soft : color)),
      hoverBackgroundColor: css('--text'), borderRadius: 3, borderSkipped: 'bottom', maxBarThickness: 44,
      categoryPercentage: 0.92, barPercentage: values.length > 40 ? 0.8 : 0.72, minBarLength: 0,
    };
    const line = {
      borderColor: color, borderWidth: 1.75, fill: 'origin', backgroundColor: withAlpha(color, 0.13), pointRadius: 0, pointHoverRadius: 4,
      pointHoverBackgroundColor: color, pointHoverBorderColor: css('--surface'), pointHoverBorderWidth: 2, tension: 0,
    };
    const shape = this.#type() === 'line' ? line : bars;
    return { labels: series.map((point) => point.start), datasets: [{ label: this.#metric.title, data: values, ...shape }] };
  }

  #options() {
    const self = this;
    const muted = css('--muted');
    const font = { family: css('--font'), size: 11.5 };
    const highest = Math.max(0, ...this.#data.series.map((point) => point.value));
    return {
      responsive: true, maintainAspectRatio: false, animation: calm.matches ? false : { duration: 250 },
      interaction: { mode: 'index', intersect: false },
      layout: { padding: { top: 8, right: 4 } },
      scales: {
        x: {
          grid: { display: false }, border: { color: css('--line-strong') },
          ticks: { autoSkip: false, maxRotation: 0, color: muted, font, padding: 4, callback: (_, index) => self.#tick(index) },
        },
        y: {
          beginAtZero: true, suggestedMax: highest === 0 ? 4 : undefined, border: { display: false },
          grid: { color: css('--line'), drawTicks: false },
          ticks: { precision: 0, maxTicksLimit: 5, color: muted, font, padding: 8, callback: (value) => axisNumber(value) },
          afterFit: (scale) => { scale.width = Math.max(scale.width, 38); },
        },
      },
      plugins: {
        legend: { display: false },
        tooltip: {
          backgroundColor: css('--tip'), titleColor: css('--tip-muted'), bodyColor: css('--tip-text'), padding: { x: 12, y: 9 }, cornerRadius: 8,
          displayColors: false, caretSize: 5, caretPadding: 6, titleFont: { ...font, weight: '400' }, bodyFont: { family: font.family, size: 14, weight: '600' },
          callbacks: { title: ([item]) => self.#name(item.dataIndex), label: (item) => `${number(item.parsed.y)} ${self.#metric.title.toLowerCase()}` },
        },
      },
    };
  }
}

/** The bucket that `now` is in, or -1. When the last one ends is taken at its longest: a month may have 31 days, a year 366. */
function runningBucket(series, interval, now) {
  const index = series.findLastIndex((point) => Date.parse(point.start) <= now);
  if (index < series.length - 1) return index;
  const hours = { hour: 1, day: 25, week: 169, month: 745, year: 8_785 }[interval];
  return index >= 0 && now < Date.parse(series[index].start) + hours * 3_600_000 ? index : -1;
}
