// The collector under test: the real binary on a free port, its data in a temporary folder.

import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const DEADLINE = 30_000;

export const APPS = [
  { key: 'shop', timezone: 'Asia/Shanghai', token: 'read-shop-0123456789abcdef' },
  { key: 'kiosk', timezone: 'America/New_York', token: 'read-kiosk-0123456789abcdef' },
  { key: 'fresh', timezone: 'UTC', token: 'read-fresh-0123456789abcdef' },
  { key: 'far', timezone: 'Asia/Shanghai', token: 'read-far-0123456789abcdef01' },
];

export class Collector {
  #child = null;

  constructor() {
    this.home = mkdtempSync(join(tmpdir(), 'subway-collector-'));
    this.base = null;
  }

  /** Writes the configuration and starts; a second start keeps the address and the data. */
  async start(apps = APPS) {
    const file = join(this.home, 'subway.toml');
    writeFileSync(file, configuration(this.home, this.base ? new URL(this.base).host : '127.0.0.1:0', apps), { mode: 0o600 });
    const binary = process.env.SUBWAY_COLLECTOR;
    if (!binary) throw new Error('SUBWAY_COLLECTOR is not set; run these tests with cargo xtask test');
    const child = spawn(binary, ['serve', '--config', file], { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child = child;
    let log = '';
    child.stderr.on('data', (chunk) => { log = (log + chunk).slice(-20_000); });
    const ended = once(child, 'exit').then(([code]) => { throw new Error(`the collector ended with ${code} before it answered:\n${log}`); });
    ended.catch(() => {});
    this.base = await within(Promise.race([listening(child), ended]), () => `the collector does not answer:\n${log}`);
  }

  /** Asks it to drain and end; anything but a clean end is an error. */
  async stop() {
    const child = this.#child;
    this.#child = null;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    const [code, signal] = await within(ended, () => 'the collector does not end after SIGTERM');
    if (code !== 0) throw new Error(`the collector ended with ${signal ?? code} after SIGTERM`);
  }

  async remove() {
    await this.stop();
    rmSync(this.home, { recursive: true, force: true });
  }

  /** Sends events of one install and checks the receipt. `raw` gives texts of JSON for the strings that it names. */
  async send(app, install, events, envelope = {}, raw = {}) {
    const batch = {
      v: 1, batch_id: randomUUID(), install_id: install, sent_at: Date.now(), sdk: { name: 'console-test', version: '1' },
      host: { platform: 'jd', app: 'jdapp', version: '13.0' }, device: { os: 'iOS', os_version: '17.1' }, events, ...envelope,
    };
    const text = Object.entries(raw).reduce((json, [name, value]) => json.replaceAll(JSON.stringify(name), value), JSON.stringify(batch));
    const response = await fetch(`${this.base}/v1/events`, { method: 'POST', headers: { 'x-subway-key': app.key }, body: text });
    const receipt = await response.json();
    if (response.status !== 200 || receipt.stored !== events.length) throw new Error(`not stored: ${response.status} ${JSON.stringify(receipt)}`);
  }

  async read(app, path) {
    const response = await fetch(`${this.base}/v1/apps/${app.key}/${path}`, { headers: { authorization: `Bearer ${app.token}` } });
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
    return response.json();
  }

  metric(app, name, range, interval) {
    return this.read(app, `metrics/${name}?from=${range.from}&to=${range.to}&interval=${interval}`);
  }

  /** Waits until the reading side shows `count` events: it follows the acknowledgement, it does not precede it. */
  async delivered(app, count) {
    const deadline = Date.now() + DEADLINE;
    for (;;) {
      const { total } = await this.metric(app, 'events', { from: '1970-01-01', to: '2100-01-01' }, 'total');
      if (total === count) return;
      if (Date.now() > deadline) throw new Error(`${app.key} shows ${total} events, ${count} were acknowledged`);
      await new Promise((next) => { setTimeout(next, 50); });
    }
  }
}

/** One event as it is sent. `time` in milliseconds is taken as it is, never corrected. */
export function event(seq, theme, code, time, more = {}) {
  return { id: randomUUID(), seq, theme, code, ts: time, true_ts: time, ...more };
}

function configuration(home, listen, apps) {
  const quote = JSON.stringify;
  return [
    `listen = ${quote(listen)}`,
    `data_dir = ${quote(join(home, 'data'))}`,
    'admin_token = "admin-0123456789abcdef0123"',
    ...apps.flatMap((app) => ['', '[[app]]', `key = ${quote(app.key)}`, `timezone = ${quote(app.timezone)}`, `read_token = ${quote(app.token)}`]),
    '',
  ].join('\n');
}

function listening(child) {
  return new Promise((resolve) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      const found = /^listening on (http:\/\/\S+)$/.exec(line);
      if (found) resolve(found[1].replace(/\/$/, ''));
    });
  });
}

async function within(promise, words) {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(words())), DEADLINE); });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
