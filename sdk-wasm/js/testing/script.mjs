// Scripts that use the package in processes of their own, as an app on Node.js does.

import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

const PACKAGE = process.env.SUBWAY_PACKAGE;

/** Empty folders, removed by `clear`. */
export class Folders {
  #made = [];

  fresh() {
    this.#made.push(fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'subway-node-test-'))));
    return this.#made.at(-1);
  }

  clear() {
    this.#made.forEach((dir) => fs.rmSync(dir, { recursive: true, force: true }));
  }
}

/** Starts a script with the package as `subway`, and `init()` on `dir` and `server`. */
export function start(server, dir, code) {
  const script = `import * as subway from ${JSON.stringify(pathToFileURL(path.join(PACKAGE, 'node.mjs')).href)};
    const init = (more) => subway.init({ server: ${JSON.stringify(server)}, key: 'k', storageDir: ${JSON.stringify(dir)}, ...more });
    ${code}`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'pipe'] });
  const all = { child, out: '' };
  let heard;
  all.says = new Promise((done) => (heard = done));
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (part) => {
      all.out += part;
      heard();
    });
  }
  all.ended = new Promise((done) => child.on('close', (status, signal) => done({ out: all.out, status, signal })));
  return all;
}

/** Runs a script to its end; gives its output and how it ended. */
export const run = (server, dir, code) => start(server, dir, code).ended;

/** A server on which every connection hangs. */
export class Silence {
  #sockets = new Set();

  async start() {
    const { createServer } = await import('node:net');
    this.server = createServer((socket) => {
      this.#sockets.add(socket);
      socket.on('error', () => {});
    });
    await new Promise((ready) => this.server.listen(0, '127.0.0.1', ready));
    this.url = `http://127.0.0.1:${this.server.address().port}`;
    return this;
  }

  async stop() {
    this.#sockets.forEach((socket) => socket.destroy());
    await new Promise((done) => this.server.close(done));
  }
}
