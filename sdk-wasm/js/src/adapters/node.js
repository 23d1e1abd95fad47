// Node.js: http(s) for requests, a folder as storage. For servers, command lines and tests.

import http from 'node:http';
import https from 'node:https';
import os from 'node:os';

import { base, timezone } from './common.js';
import { folderStorage } from './folder.js';

/** The longest delay of a timer, milliseconds. */
const LONGEST_DELAY_MS = 0x7fffffff;

/** Sends with node:http or node:https; `done(status, header, text)` is called once. It does not keep the process alive. */
export function nodeRequest(request, done) {
  const url = new URL(request.url);
  const client = url.protocol === 'https:' ? https : http;
  let over;
  const end = (...answer) => {
    clearTimeout(over);
    done(...answer);
  };
  const sent = client.request(url, { method: 'POST', headers: request.headers }, (answer) => {
    let text = '';
    answer.setEncoding('utf8');
    answer.on('data', (part) => (text += part));
    answer.on('end', () => end(answer.statusCode, (name) => answer.headers[name], text));
    answer.on('error', () => end(0));
  });
  // For the whole of it: an answer that trickles in for ever is none.
  over = setTimeout(() => sent.destroy(), request.timeout);
  over.unref();
  sent.on('socket', (socket) => socket.unref());
  sent.on('error', () => end(0));
  sent.end(request.body);
}

/** The adapter; the SDK's timers do not keep the process alive. */
export function nodeAdapter(folder) {
  const storage = folderStorage(folder);
  return Object.assign(nodeHost(), { storage, release: storage.release });
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
    hold() {
      const timer = setInterval(() => {}, LONGEST_DELAY_MS);
      return () => clearInterval(timer);
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
