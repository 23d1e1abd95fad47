// Plays events through the JD build, one SDK instance in a simulated JD host per install, into a real collector.
//
//   node replay-host.mjs --package DIR --to URL --key KEY [--parallel N] < events.ndjson
//
// A line: {"install": "..", "code": "..", "theme": "..", "props": {..}, "trueTs": ms, "page": {..}, "device": {..}}.
// Lines of one install may be anywhere; they keep their order. Progress goes to stderr as `progress INSTALLS EVENTS ACKED`;
// stdout gets one line: {"installs": n, "events": n, "acked": n, "dropped": n, "queued": n, "first_problem": ".."}.
// Exit 1 if anything was not acknowledged.

import http from 'node:http';
import https from 'node:https';
import path from 'node:path';
import readline from 'node:readline';
import { createRequire } from 'node:module';
import { parseArgs } from 'node:util';

/** An install is given up after so long without progress, milliseconds. */
const PATIENCE_MS = 900_000;
/** The SDK decides when it sends again; how often it is asked, milliseconds. */
const ASK_MS = 200;

const { values } = parseArgs({
  options: {
    package: { type: 'string' },
    to: { type: 'string' },
    key: { type: 'string' },
    parallel: { type: 'string', default: '16' },
    platform: { type: 'string', default: 'jd' },
  },
});
for (const name of ['package', 'to', 'key']) {
  if (!values[name]) throw new Error('--' + name + ' is missing');
}
const parallel = Number(values.parallel);
const subway = createRequire(import.meta.url)(path.resolve(values.package, 'jd.js'));
const client = values.to.startsWith('https:') ? https : http;
const agent = new client.Agent({ keepAlive: true, maxSockets: parallel });
const total = { installs: 0, events: 0, acked: 0, dropped: 0, queued: 0, first_problem: '' };

/** What a JD host offers, with a storage of its own. */
function jdHost() {
  const storage = new Map();
  return {
    getStorageSync: (key) => (storage.has(key) ? storage.get(key) : ''),
    setStorageSync: (key, value) => void storage.set(key, value),
    removeStorageSync: (key) => void storage.delete(key),
    getStorageInfoSync: () => ({ keys: [...storage.keys()] }),
    getSystemInfoSync: () => ({}),
    request({ url, method, header, data, success, fail }) {
      const request = client.request(url, { method, headers: header, agent }, (answer) => {
        let text = '';
        answer.setEncoding('utf8');
        answer.on('data', (part) => (text += part));
        answer.on('end', () => success({ statusCode: answer.statusCode, header: answer.headers, data: text }));
        answer.on('error', fail);
      });
      request.on('error', fail);
      request.end(data);
    },
  };
}

async function readInstalls() {
  const installs = new Map();
  for await (const line of readline.createInterface({ input: process.stdin })) {
    if (!line.trim()) continue;
    const event = JSON.parse(line);
    if (!installs.has(event.install)) installs.set(event.install, []);
    installs.get(event.install).push(event);
  }
  return installs;
}

/** One install: tracks everything, and waits until the collector has acknowledged it. */
async function play(events) {
  const instance = subway.createInstance(subway.miniAdapter('jd', jdHost()));
  instance.init({
    server: values.to,
    key: values.key,
    platform: values.platform,
    device: events[0].device || {},
    // All events of an install fit, whatever their number: the log has happened already.
    queueRows: events.length + 1,
    queueBytes: 1024 * 1024 * 1024,
    flushEvents: events.length + 1,
    onWarning: (text) => (total.first_problem = total.first_problem || text),
  });
  for (const { code, theme, props, trueTs, page } of events) instance.track(code, props, { theme, trueTs, page });
  let ledger = instance.getLedger();
  for (let end = Date.now() + PATIENCE_MS; ledger.queued && Date.now() < end; ) {
    const before = ledger.acked;
    ledger = await instance.flush();
    if (ledger.acked > before) end = Date.now() + PATIENCE_MS;
    if (!ledger.ok) await new Promise((next) => setTimeout(next, ASK_MS));
  }
  instance.close();
  total.installs++;
  total.events += events.length;
  total.acked += ledger.acked;
  total.queued += ledger.queued;
  total.dropped += Object.values(ledger.dropped).reduce((sum, count) => sum + count, 0);
}

const installs = await readInstalls();
const waiting = [...installs.values()];
const progress = setInterval(() => console.error('progress', total.installs, total.events, total.acked), 500);
const worker = async () => {
  for (let events = waiting.shift(); events; events = waiting.shift()) await play(events);
};
await Promise.all(Array.from({ length: parallel }, worker));
clearInterval(progress);
agent.destroy();
console.error('progress', total.installs, total.events, total.acked);
console.log(JSON.stringify(total));
process.exitCode = total.acked === total.events && total.queued === 0 ? 0 : 1;
