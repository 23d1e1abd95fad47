// Node.js: a folder as storage, http(s) for requests. For servers, command lines and tests.

import fs from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import os from 'node:os';
import path from 'node:path';

import { base, timezone } from './common.js';

/** One file a key, replaced atomically and synced. The folder belongs to one process at a time. */
export function folderStorage(folder) {
  fs.mkdirSync(folder, { recursive: true });
  const claim = path.join(folder, 'in-use');
  const file = (key) => path.join(folder, encodeURIComponent(key) + '.txt');
  let claimed = false;
  const enter = () => {
    if (claimed) return;
    claimFolder(claim);
    claimed = true;
  };
  const sync = (name) => {
    const handle = fs.openSync(name, 'r');
    try {
      fs.fsyncSync(handle);
    } finally {
      fs.closeSync(handle);
    }
  };
  return {
    get(key) {
      enter();
      try {
        return fs.readFileSync(file(key), 'utf8');
      } catch (e) {
        if (e.code === 'ENOENT') return undefined;
        throw e;
      }
    },
    set(key, value) {
      enter();
      const draft = file(key) + '.draft';
      fs.writeFileSync(draft, value);
      sync(draft);
      fs.renameSync(draft, file(key));
      sync(folder);
    },
    remove(key) {
      enter();
      fs.rmSync(file(key), { force: true });
    },
    keys() {
      enter();
      return fs.readdirSync(folder).filter((name) => name.endsWith('.txt')).map((name) => decodeURIComponent(name.slice(0, -4)));
    },
    release() {
      if (claimed) fs.rmSync(claim, { force: true });
      claimed = false;
    },
  };
}

/** Two processes on one folder would overwrite each other's log: the second one is refused while the first lives. */
function claimFolder(claim) {
  for (;;) {
    try {
      fs.writeFileSync(claim, String(process.pid), { flag: 'wx' });
      return;
    } catch (e) {
      if (e.code !== 'EEXIST') throw e;
    }
    const owner = Number(fs.readFileSync(claim, 'utf8'));
    if (owner && owner !== process.pid && alive(owner)) throw new Error('storage folder in use by process ' + owner);
    fs.rmSync(claim, { force: true });
  }
}

function alive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (e) {
    return e.code === 'EPERM';
  }
}

/** Sends with node:http or node:https; `done(status, header, text)` is called once. */
export function nodeRequest(request, done) {
  const url = new URL(request.url);
  const client = url.protocol === 'https:' ? https : http;
  const sent = client.request(url, { method: 'POST', headers: request.headers, timeout: request.timeout }, (answer) => {
    let text = '';
    answer.setEncoding('utf8');
    answer.on('data', (part) => (text += part));
    answer.on('end', () => done(answer.statusCode, (name) => answer.headers[name], text));
    answer.on('error', () => done(0));
  });
  sent.on('timeout', () => sent.destroy());
  sent.on('error', () => done(0));
  sent.end(request.body);
}

/** The adapter; the SDK's timers do not keep the process alive. */
export function nodeAdapter(folder) {
  return Object.assign(nodeHost(), { storage: folderStorage(folder) });
}

/** The adapter without its storage, for an instance whose folder is not known yet. */
export function nodeHost() {
  return Object.assign(base(), {
    platform: 'node',
    keyBytes: 1024 * 1024,
    binary: true,
    request: nodeRequest,
    setTimeout(work, ms) {
      const timer = setTimeout(work, ms);
      timer.unref();
      return timer;
    },
    system: () => ({
      hostApp: 'node',
      hostVersion: process.versions.node,
      os: os.type(),
      osVersion: os.release(),
      model: os.arch(),
      language: Intl.DateTimeFormat().resolvedOptions().locale,
      timezone: timezone(),
    }),
    network() {},
  });
}
