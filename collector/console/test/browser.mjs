// The browser under test: launches it, opens guarded pages and reads what they show.
//
// A guarded page records everything that must not happen: a console error, an exception, a request to another origin.

import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const tools = required('SUBWAY_CONSOLE_TOOLS');
const requireTool = createRequire(join(tools, 'package.json'));
const { default: puppeteer } = requireTool('puppeteer-core');

export const shots = required('SUBWAY_SCREENSHOTS');
export const toolFile = (name) => requireTool.resolve(name);

/** Milliseconds after which something that should happen counts as not happening. */
export const PATIENCE = 15_000;

const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage', '--font-render-hinting=none',
  '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1'];

export const DESKTOP = { width: 1280, height: 900 };
export const PHONE = { width: 390, height: 844, deviceScaleFactor: 2, isMobile: true, hasTouch: true };

function required(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set; run these tests with cargo xtask test`);
  return value;
}

export class Browser {
  static async launch() {
    const profile = mkdtempSync(join(tmpdir(), 'subway-console-'));
    // A browser from npm brings fonts, and libraries for machines that lack them.
    const { SUBWAY_BROWSER_LIBRARIES: libraries, SUBWAY_BROWSER_FONTS: fonts } = process.env;
    const env = { ...process.env, ...(libraries && { LD_LIBRARY_PATH: libraries }), ...(fonts && { FONTCONFIG_FILE: fonts }) };
    const browser = await puppeteer.launch({ executablePath: required('SUBWAY_BROWSER'), headless: 'shell', args: FLAGS, userDataDir: profile, env });
    mkdirSync(shots, { recursive: true });
    return new Browser(browser, profile);
  }

  constructor(browser, profile) {
    this.browser = browser;
    this.profile = profile;
  }

  /** A page with a session of its own. `base` is the only origin it may talk to. */
  async page(base, { viewport = DESKTOP, scheme = 'light' } = {}) {
    const context = await this.browser.createBrowserContext();
    const page = await context.newPage();
    page.setDefaultTimeout(PATIENCE);
    await page.setViewport(viewport);
    await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }, { name: 'prefers-reduced-motion', value: 'reduce' }]);
    return new Guarded(page, base);
  }

  async close() {
    await this.browser.close();
    rmSync(this.profile, { recursive: true, force: true });
  }
}

export class Guarded {
  constructor(page, base) {
    this.page = page;
    this.base = base;
    /** What went wrong and which requests were made, in order. */
    this.faults = [];
    this.requests = [];
    page.on('console', (message) => {
      if (['error', 'warn', 'assert'].includes(message.type())) this.faults.push(`console: ${message.text()} ${message.location().url ?? ''}`);
    });
    page.on('pageerror', (error) => this.faults.push(`exception: ${error.message}`));
    page.on('dialog', (dialog) => {
      this.faults.push(`a script opened a dialog: ${dialog.message()}`);
      dialog.dismiss();
    });
    page.on('request', (request) => {
      this.requests.push(request.url().replace(/#.*$/, ''));
      const { protocol, origin } = new URL(request.url());
      // The browser draws its own date picker from data: addresses; they leave nothing.
      if (protocol !== 'data:' && origin !== base) this.faults.push(`request to ${request.url()}`);
    });
  }

  async open(hash = '') {
    await this.page.goto(`${this.base}/${hash}`, { waitUntil: 'load' });
  }

  /** Types the token into the sign-in page and waits for the numbers. */
  async signIn(token) {
    await this.page.waitForSelector('#signin-token', { visible: true });
    await this.page.type('#signin-token', token);
    await this.page.keyboard.press('Enter');
    await this.settled();
  }

  /** Waits until the tiles and the charts show what was asked for last. */
  async settled() {
    await this.page.waitForFunction(() => {
      const numbers = [...document.querySelectorAll('.tile-number')];
      return !document.getElementById('console').hidden && numbers.length > 0 && numbers.every((node) => node.textContent !== '')
        && document.querySelector('.loading') === null;
    });
  }

  /** Waits for a text; whether a range of dates has spaces around its dash depends on the browser. */
  async waitText(selector, text) {
    await this.page.waitForFunction((css, wanted) => document.querySelector(css)?.textContent.replace(/\s*–\s*/g, '–').includes(wanted), {}, selector, text);
  }

  /** Picks a radio button of the toolbar and waits for the new numbers. */
  async pick(group, value) {
    await this.page.$eval(`#${group} input[value="${value}"]`, (input) => input.click());
    await this.settled();
  }

  /** The totals of the tiles: `{pv: 12, ..}`; null where none is shown. */
  tiles() {
    return this.page.$$eval('.tile', (tiles) => Object.fromEntries(tiles.map((tile) => {
      const { value } = tile.querySelector('.tile-number').dataset;
      return [tile.dataset.metric, value === '' ? null : Number(value)];
    })));
  }

  /** What the tiles say to a person, without grouping: `{pv: '1234'}`. */
  tileTexts() {
    return this.page.$$eval('.tile', (tiles) => Object.fromEntries(
      tiles.map((tile) => [tile.dataset.metric, tile.querySelector('.tile-number').textContent.replaceAll(',', '')])));
  }

  /** The buckets of a chart's table: `[[start, value], ..]`. */
  table(metric) {
    return this.page.$$eval(`.chart[data-metric="${metric}"] td`, (cells) => cells.map((cell) => [cell.dataset.start, Number(cell.textContent.replaceAll(',', ''))]));
  }

  /** The numbers that the chart itself draws. */
  drawn(metric) {
    return this.page.$eval(`.chart[data-metric="${metric}"] canvas`, (canvas) => globalThis.Chart.getChart(canvas).data.datasets[0].data);
  }

  view() {
    return this.page.evaluate(() => Object.fromEntries(new URLSearchParams(location.hash.slice(1))));
  }

  /** The codes in the live list, the newest first. */
  codes() {
    return this.page.$$eval('.event-code', (cells) => cells.map((cell) => cell.textContent));
  }

  async shot(name) {
    // From the top, and the pixels of the last frame, not of one before it.
    await this.page.evaluate(() => new Promise((done) => {
      scrollTo(0, 0);
      requestAnimationFrame(() => requestAnimationFrame(done));
    }));
    await this.page.screenshot({ path: join(shots, `${name}.png`), fullPage: true });
  }

  /** What axe-core finds against WCAG 2.2 AA: `[{id, help, nodes}]`. */
  async accessibilityFaults() {
    if (!(await this.page.evaluate(() => 'axe' in globalThis))) await this.page.evaluate(readFileSync(toolFile('axe-core/axe.min.js'), 'utf8'));
    return this.page.evaluate(async () => {
      const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
      const { violations } = await globalThis.axe.run(document, { runOnly: { type: 'tag', values: tags } });
      return violations.map(({ id, help, nodes }) => ({ id, help, nodes: nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`) }));
    });
  }

  /** True if the page is wider than its window. A phone would zoom out then, so the window's own width says nothing. */
  async overflows() {
    const { width } = this.page.viewport();
    return (await this.page.evaluate(() => Math.max(document.documentElement.scrollWidth, innerWidth))) > width;
  }

  /** Ends the page and gives what went wrong, without what a test expected. */
  async end(expected = []) {
    await this.page.browserContext().close();
    return this.faults.filter((fault) => !expected.some((pattern) => pattern.test(fault)));
  }
}
