// One SDK instance: the public API, and the loop that serves the Rust half. The Rust half decides; this half does.

import { register } from './host.js';
import { configText, contextText, line, lines, NO_PAGE, pageText } from './texts.js';

/** Calls kept until the core is open; more are counted and reported. */
const EARLY_CALLS = 200;
/** A request without an answer is given up, milliseconds; below the core's own limit, so that hosts can abort it. */
const REQUEST_TIMEOUT_MS = 50000;
/** Opening a storage that failed is tried again after this time, milliseconds. */
const OPEN_RETRY_MS = 5000;
/** The longest delay that every setTimeout takes, milliseconds. */
const LONGEST_DELAY_MS = 0x7fffffff;

/** Beyond every time, and still written without an exponent. */
const NO_TIME = 9007199254740991;

/** The themes of the wire; an unknown one would be counted as something else. */
const THEMES = 'view click exposure order lifecycle share error performance network profile custom'.split(' ');

/**
 * Makes an instance. `load(adapter, done, fail)` hands the core's exports to `done`, at once or later.
 * Gives the public API, and as `auto` what automatic tracking calls.
 */
export function createInstance(adapter, load) {
  let options;
  let core;
  let number;
  let early = [];
  let lost = 0;
  let timer;
  let timerAt;
  let page = '';
  let network;
  // Whether the core is there or may still come.
  let opening = false;
  let flushed = [];

  const clock = () => ({ wall: adapter.now(), mono: adapter.mono() });
  const warn = (text) => (options && options.onWarning ? options.onWarning(text) : adapter.warn('subway: ' + text));
  // Nothing that goes wrong in here may reach the app.
  const quietly = (work) =>
    function () {
      try {
        return work.apply(null, arguments);
      } catch (e) {
        try {
          warn((e && e.message) || e);
        } catch (_) {
          // Even the app's own onWarning may throw.
        }
      }
    };

  // Runs when the core is open: now, or later with the time of the call.
  const when = (run) => {
    const at = clock();
    if (core) {
      const result = run(at, '');
      arm(at.mono);
      return result;
    }
    if (early.length < EARLY_CALLS) early.push([run, at, page]);
    else lost++;
  };
  // `verb` is a letter of `perform` in exports.rs. An answer that begins with ! says why not.
  const call = (at, verb, text) => {
    const answer = core.call(number, at.wall, at.mono, verb.charCodeAt(0), text || '');
    if (answer[0] !== '!') return answer;
    warn(answer.slice(1));
  };
  const say = (verb, text) => when((at) => call(at, verb, text));

  // One timer, for the time that the core names.
  const arm = (mono) => {
    // A timer that is due already, as in every turn after its first event, cannot be too late.
    if (timer !== undefined && timerAt <= mono) return;
    const at = core.wake(number);
    if (at < 0 || (timer !== undefined && timerAt <= at)) return;
    if (timer !== undefined) adapter.clearTimeout(timer);
    timerAt = at;
    timer = adapter.setTimeout(wake, Math.min(Math.max(at - mono, 0), LONGEST_DELAY_MS));
  };
  const wake = quietly(() => {
    timer = undefined;
    pump();
  });

  // Does what the core asks for.
  const pump = () => {
    if (!core) return;
    const at = clock();
    const batch = call(at, 'P');
    if (batch) send(batch);
    arm(at.mono);
  };
  const send = (batch) => {
    const zip = adapter.binary && options.compress !== false;
    const headers = { 'content-type': adapter.simple ? 'text/plain' : 'application/json' };
    let url = options.server.replace(/\/+$/, '') + '/v1/events';
    if (adapter.simple) url += '?key=' + encodeURIComponent(options.key);
    else {
      headers['x-subway-key'] = options.key;
      if (zip) headers['content-encoding'] = 'gzip';
    }
    const mine = number;
    let answered;
    const done = quietly((status, header, text) => {
      if (answered || !core || number !== mine) return;
      answered = true;
      const at = clock();
      const after = status && header ? retryAfter(header('retry-after'), at.wall) : NaN;
      call(at, 'R', lines([batch, status || 0, after >= 0 ? Math.round(after) : '']) + '\n' + (text || ''));
      settle(status);
      pump();
    });
    const body = zip ? core.zipped(number) : call(clock(), 'B');
    try {
      adapter.request({ url, headers, body, timeout: REQUEST_TIMEOUT_MS }, done);
    } catch (e) {
      done(0);
    }
  };
  const status = () => JSON.parse(call(clock(), 'l'));
  // Passes on what the developer should know, and ends the waiting of flush() when there is nothing more to wait for.
  const settle = (httpStatus) => {
    const now = status();
    now.notices.forEach(warn);
    if (now.ledger.queued === 0 || httpStatus !== 200) endFlush(now.ledger);
  };
  const endFlush = (ledger) => {
    const all = flushed;
    flushed = [];
    all.forEach((tell) => quietly(tell)(ledger));
  };

  const open = quietly((loaded, storage) => {
    if (!opening) return;
    const at = clock();
    core = loaded;
    number = call(
      at,
      'O',
      [
        lines([storage, adapter.keyBytes, options.storagePrefix || 'subway.' + options.key + '.', adapter.entropy()]),
        configText(options, adapter),
        contextText(options, adapter, network),
      ].join('\n')
    );
    if (!number) {
      core = undefined;
      adapter.setTimeout(() => open(loaded, storage), OPEN_RETRY_MS);
      return endFlush(emptyLedger());
    }
    if (lost) warn(lost + ' calls before init were lost');
    const calls = early;
    early = [];
    calls.forEach((one) => quietly(one[0])(one[1], one[2]));
    if (flushed.length) flushNow();
    else pump();
  });
  const unavailable = quietly((e) => {
    opening = false;
    endFlush(emptyLedger());
    warn('the core cannot be loaded: ' + ((e && e.message) || e));
  });

  // An event that cannot be told to the core is counted by it nevertheless.
  const counted = (work) => {
    try {
      return work();
    } catch (e) {
      say('v');
      throw e;
    }
  };

  const track = (code, props, extra) => {
    // Now, because the app may change the object afterwards.
    const [head, where, text] = counted(() => eventParts(code, props, extra));
    return when((at, earlyPage) => call(at, 'T', [head, where || earlyPage || NO_PAGE, text].join('\n')));
  };
  const setPage = (next) => {
    page = next ? pageText(next) : '';
    const text = page;
    when((at) => call(at, 'p', text));
  };
  const flush = quietly((tell) => {
    flushed.push(tell || (() => {}));
    if (core) flushNow();
    else if (!opening) endFlush(emptyLedger());
  });
  const flushNow = () => {
    try {
      call(clock(), 's');
      pump();
      if (status().ledger.queued === 0) settle(200);
    } catch (e) {
      // A core that broke gives no answer any more.
      endFlush(emptyLedger());
      throw e;
    }
  };
  const identify = (user) => {
    if (typeof user === 'string' ? !user : typeof user !== 'number' || !isFinite(user)) {
      return warn('a user is a non-empty string or a finite number');
    }
    say('i', String(user));
  };

  const api = {
    init(given) {
      if (options) return warn('init was called twice');
      if (!given || !given.server || !given.key) throw new Error('init needs { server, key }');
      options = given;
      opening = true;
      try {
        load(adapter, (loaded) => open(loaded, register(adapter.storage)), unavailable, given);
      } catch (e) {
        unavailable(e);
      }
      adapter.network(
        quietly((type) => {
          network = type;
          if (core) say('c', contextText(options, adapter, network));
        })
      );
    },
    track,
    identify,
    login: identify,
    logout: () => say('o'),
    registerApp(props) {
      const text = JSON.stringify(props);
      say('r', text);
    },
    unregisterApp: (name) => say('u', name),
    clearAppRegister: () => say('x'),
    setConsent(granted) {
      say(granted ? 'y' : 'n');
      pump();
    },
    setPage,
    trackTimerStart: (code) => say('t', line(code)),
    trackTimerEnd(code, props) {
      // Now, because the app may change the object afterwards.
      const [head, where, text] = counted(() => eventParts(code, props));
      when((at, earlyPage) => {
        call(at, 'e', [head, where || earlyPage || NO_PAGE, text].join('\n'));
        status().notices.forEach(warn);
      });
    },
    flush: (tell) => (typeof Promise === 'function' && !tell ? new Promise((done) => flush(done)) : flush(tell)),
    getDeviceId: () => (core ? call(clock(), 'd') : ''),
    getLedger: () => (core ? status().ledger : emptyLedger()),
    getConsent: () => (core ? status().consent : 'unknown'),
    close() {
      opening = false;
      early = [];
      if (!core) return endFlush(emptyLedger());
      call(clock(), 'w');
      const { ledger } = status();
      call(clock(), 'X');
      core = undefined;
      endFlush(ledger);
      if (timer !== undefined) adapter.clearTimeout(timer);
    },
  };
  Object.keys(api).forEach((name) => (api[name] = quietly(api[name])));

  const auto = {
    enabled: (name) => !options || options.autoTrack === undefined || options.autoTrack === true || !!(options.autoTrack && options.autoTrack[name]),
    track,
    setPage,
    quietly,
    mono: () => adapter.mono(),
    now: () => adapter.now(),
    foreground: () => say('f'),
    // The host may be killed now: first persist, then send.
    background: () =>
      when((at) => {
        call(at, 'b');
        call(at, 'w');
        pump();
      }),
  };
  return { api, auto };
}

/** What is known without a core. */
const emptyLedger = () => ({ generated: 0, acked: 0, queued: 0, dropped: {} });

/** An event as exports.rs reads it: what goes before its page, the page if one is given, the properties. */
function eventParts(code, props, extra) {
  const text = props === undefined || props === null ? '' : JSON.stringify(props);
  const theme = (extra && extra.theme) || 'custom';
  if (THEMES.indexOf(theme) < 0) throw new Error('unknown_theme: ' + line(theme));
  const given = extra && extra.trueTs;
  // What is no time is refused, and counted, by the core.
  const trueTs = given === undefined || given === null ? '' : given >= 0 && given < NO_TIME ? Math.floor(given) : NO_TIME;
  return [lines([theme, code, trueTs]), extra && extra.page ? pageText(extra.page) : '', text];
}

/** `Retry-After` (RFC 9110, 10.2.3), seconds or a date, as milliseconds from now; NaN if it says nothing. */
function retryAfter(value, wall) {
  if (value === undefined || value === null || value === '') return NaN;
  return isNaN(value) ? Math.max(Date.parse(value) - wall, 0) : value * 1000;
}
