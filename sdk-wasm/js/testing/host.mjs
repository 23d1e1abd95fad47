// A simulated mini-program host: a phone whose storage outlives the app, and the lives of the app on it. The package runs
// in a realm of its own that lacks what old runtimes lack; time is the test's; requests are real.

import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import vm from 'node:vm';

const PACKAGE = process.env.SUBWAY_PACKAGE;
if (!PACKAGE) throw new Error('run this through `cargo xtask wasm test`: SUBWAY_PACKAGE is not set');

const scripts = new Map();
function script(file) {
  if (!scripts.has(file)) {
    const code = fs.readFileSync(path.join(PACKAGE, file), 'utf8');
    scripts.set(file, new vm.Script(`(function (module, exports) {${code}\n})`, { filename: file }));
  }
  return scripts.get(file);
}

/** What jd.js and mini.js differ in, as tests see it. */
export const BUILDS = {
  jd: { file: 'jd.js', global: 'jd', platform: 'jd' },
  mini: { file: 'mini.js', global: 'wx', platform: 'weapp' },
};

export class Phone {
  storage = new Map();
  wall = Date.UTC(2026, 0, 2, 3, 4, 5);
  /** 'ok'; 'offline': requests fail; 'deaf': they arrive and the answer is lost. */
  network = 'ok';
  /** Most characters under one key, and in all. */
  keyLimit = 1024 * 1024;
  limit = 10 * 1024 * 1024;
  /** A fault at the n-th change of the storage: { at, kind: 'kill' | 'tear' | 'after' | 'fail' }. */
  fault = null;
  changes = 0;

  constructor(build) {
    this.build = BUILDS[build];
  }

  /** Starts the app: loads the package as the app's first import would. */
  async launch(options = {}) {
    const life = new Life(this, options);
    await life.settle();
    return life;
  }

  bytes() {
    return [...this.storage.values()].reduce((sum, text) => sum + text.length, 0);
  }
}

class Life {
  dead = false;
  warnings = [];
  requests = 0;
  #timers = [];
  #nextTimer = 1;
  #open = new Set();
  #mono = 0;

  constructor(phone, { missing = [], globals = {} }) {
    this.phone = phone;
    const api = this.#api();
    missing.forEach((name) => delete api[name]);
    const sandbox = {
      [phone.build.global]: api,
      console: { warn: (text) => this.warnings.push(String(text)) },
      setTimeout: (work, ms) => this.#arm(work, ms),
      clearTimeout: (id) => (this.#timers = this.#timers.filter((timer) => timer.id !== id)),
      App: (options) => {
        this.appOptions = options;
        return 'app made';
      },
      Page: (options) => {
        this.pageOptions = options;
      },
      Component: (options) => {
        this.componentOptions = options;
        return 'component made';
      },
      WXWebAssembly: phone.build.file === 'mini.js' ? { instantiate: this.#instantiate } : undefined,
      ...globals,
    };
    this.context = vm.createContext(sandbox);
    // What mini-program runtimes may lack.
    this.realm(`delete this.BigInt; delete this.WebAssembly; delete this.SharedArrayBuffer; delete this.Atomics; delete this.Intl;
      eval = Function = undefined;`);
    this.context.__now = () => this.phone.wall;
    this.realm(`Date = (function (Real, now) {
      function Fake(value) { return arguments.length ? new Real(value) : new Real(now()); }
      Fake.now = now; Fake.parse = Real.parse; Fake.UTC = Real.UTC; Fake.prototype = Real.prototype;
      return Fake; })(Date, __now); delete this.__now; delete this.globalThis;`);
    const module = { exports: {} };
    script(phone.build.file).runInContext(this.context)(module, module.exports);
    this.sdk = module.exports;
  }

  realm(code) {
    return vm.runInContext(code, this.context);
  }

  // The compiler is Node's own; the mini-program's package is the npm package.
  #instantiate = async (file, imports) => {
    const made = WebAssembly.instantiate(fs.readFileSync(path.join(PACKAGE, path.basename(file))), imports);
    return this.#track(made);
  };

  #track(promise) {
    this.#open.add(promise);
    const forget = () => this.#open.delete(promise);
    promise.then(forget, forget);
    return promise;
  }

  /** One change of the storage, with the fault that the test asked for. */
  #change(half, whole) {
    const phone = this.phone;
    if (this.dead) throw new Error('killed');
    const fault = phone.fault && phone.fault.at === phone.changes++ ? phone.fault.kind : '';
    if (fault === 'fail') throw { errMsg: 'setStorage:fail' };
    if (fault === 'kill' || fault === 'tear' || fault === 'after') {
      if (fault === 'tear') half();
      if (fault === 'after') whole();
      this.kill();
      throw new Error('killed');
    }
    whole();
  }

  #api() {
    const phone = this.phone;
    const alive = () => {
      if (this.dead) throw new Error('killed');
    };
    return {
      getStorageSync: (key) => (alive(), phone.storage.has(key) ? phone.storage.get(key) : ''),
      setStorageSync: (key, value) => {
        if (typeof value !== 'string') throw new Error('the test host stores texts only');
        const old = phone.storage.get(key) || '';
        if (value.length > phone.keyLimit || phone.bytes() - old.length + value.length > phone.limit) {
          throw { errMsg: 'setStorageSync:fail exceed max size' };
        }
        const half = value.slice(0, value.length / 2);
        this.#change(() => phone.storage.set(key, half), () => phone.storage.set(key, value));
      },
      removeStorageSync: (key) => this.#change(() => {}, () => phone.storage.delete(key)),
      getStorageInfoSync: () => (alive(), { keys: [...phone.storage.keys()], currentSize: phone.bytes() / 1024, limitSize: 10240 }),
      getSystemInfoSync: () => ({ brand: 'Apple', model: 'iPhone 15', system: 'iOS 17.1', version: '13.0', language: 'zh_CN', screenWidth: 390, screenHeight: 844 }),
      getNetworkType: ({ success }) => success({ networkType: 'wifi' }),
      onNetworkStatusChange: (listener) => (this.onNetwork = listener),
      request: (options) => this.#track(this.#request(options)),
    };
  }

  async #request({ url, method, header, data, success, fail }) {
    this.requests++;
    if (this.dead) return;
    if (this.onRequest) this.onRequest(data);
    let answer = null;
    if (this.phone.network !== 'offline') answer = await post(url, method, header, data).catch(() => null);
    if (this.dead) return;
    if (!answer || this.phone.network === 'deaf') fail({ errMsg: 'request:fail' });
    else success(answer);
  }

  #arm(work, ms) {
    const id = this.#nextTimer++;
    this.#timers.push({ id, at: this.#mono + Math.max(ms || 0, 0), work });
    return id;
  }

  /** Ends this life as the system does: no further effect of it reaches the phone. */
  kill() {
    this.dead = true;
    this.#timers = [];
  }

  /** Waits until no request is under way and what hung on them has run. */
  async settle() {
    do {
      await Promise.allSettled(this.#open);
      await new Promise((next) => setImmediate(next));
    } while (this.#open.size);
  }

  /** Lets `ms` pass: timers run at their time, in order. */
  async advance(ms) {
    const end = this.#mono + ms;
    for (;;) {
      await this.settle();
      const due = this.#timers.filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at || a.id - b.id)[0];
      if (!due || this.dead) break;
      this.#timers = this.#timers.filter((timer) => timer !== due);
      this.#pass(Math.max(due.at - this.#mono, 0));
      due.work();
    }
    this.#pass(end - this.#mono);
    await this.settle();
  }

  #pass(ms) {
    this.#mono += ms;
    this.phone.wall += ms;
  }

  /** Opens a page as the host does: its options become an instance, onLoad and onShow are called. */
  openPage(route, options, query = {}) {
    this.context.Page(options);
    const page = Object.assign({}, this.pageOptions, { route });
    page.onLoad && page.onLoad(query);
    page.onShow && page.onShow();
    return page;
  }
}

function post(url, method, headers, data) {
  const body = typeof data === 'string' ? data : Buffer.from(new Uint8Array(data));
  return new Promise((done, failed) => {
    const request = http.request(url, { method, headers, agent: false }, (answer) => {
      const parts = [];
      answer.on('data', (part) => parts.push(part));
      answer.on('error', failed);
      answer.on('end', () => done({ statusCode: answer.statusCode, header: answer.headers, data: Buffer.concat(parts).toString() }));
    });
    request.on('error', failed);
    request.end(body);
  });
}
