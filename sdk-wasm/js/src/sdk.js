// One SDK instance: the public API, and the loop that serves the Rust half. The Rust half decides; this half does.

import { emptyLedger, flushes } from './flush.js';
import { register, unregister } from './host.js';
import { serverText } from './server.js';
import { dependable } from './storage.js';
import { configText, contextText, eventParts, line, lines, NO_PAGE, pageText, retryAfter } from './texts.js';

/** Calls kept until the core is open; more are counted and reported. */
const EARLY_CALLS = 200;
/** A request without an answer is given up, milliseconds; below the core's own limit, so that hosts can abort it. */
const REQUEST_TIMEOUT_MS = 50000;
/** A request of which a host says nothing at all counts as failed after this time, milliseconds: after its own limit. */
const SILENCE_MS = 55000;
/** A storage that belongs to somebody else is asked for again after this time, milliseconds. */
const OPEN_RETRY_MS = 5000;
/** A flush waits so long for a core that is on its way, milliseconds. */
const LOADING_MS = 30000;
/** And so long for a storage that is somebody else's, so that a loop around it does not spin, milliseconds. */
const REFUSED_MS = 100;
/** So many different messages of the core are remembered, each of which is said once. */
const SAID_TEXTS = 100;
/** The longest delay that every setTimeout takes, milliseconds. */
const LONGEST_DELAY_MS = 0x7fffffff;

/**
 * Makes an instance. `load(adapter, done, fail)` hands the core's exports to `done`, at once or later.
 * Gives the public API, and as `auto` what automatic tracking calls.
 */
export function createInstance(adapter, load) {
  let options;
  let hear;
  let core;
  let number;
  let place;
  let early = [];
  let lost = 0;
  let timer;
  let timerAt;
  let shown;
  let page = '';
  let network;
  // Whether the core is there or may still come.
  let opening = false;
  // Whether the storage belongs to somebody else so far.
  let refused = false;
  // The batch under way, and what came of the last one: 'no_answer', 'refused', or nothing if it was taken.
  let sending;
  let trouble;
  // What was said already.
  let said = [];
  // Whether the process may end after any call.
  let ending = false;
  let closed = false;

  const clock = () => ({ wall: adapter.now(), mono: adapter.mono() });
  const warn = (text) => (hear ? hear(text) : adapter.warn('subway: ' + text));
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
      if (ending) call(at, 'w');
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
    try {
      const batch = call(at, 'P');
      if (batch) send(batch);
      notices();
      arm(at.mono);
      waiting.settle();
    } catch (e) {
      // A core that broke gives no answer any more.
      waiting.endAll('not_ready');
      throw e;
    }
  };
  const send = (batch) => {
    const zip = adapter.binary && options.compress !== false;
    const headers = { 'content-type': adapter.simple ? 'text/plain' : 'application/json' };
    let url = options.server + '/v1/events';
    if (adapter.simple) url += '?key=' + encodeURIComponent(options.key);
    else {
      headers['x-subway-key'] = options.key;
      if (zip) headers['content-encoding'] = 'gzip';
    }
    const mine = number;
    let answered;
    sending = batch;
    waiting.trying();
    const done = quietly((status, header, text) => {
      if (answered) return;
      answered = true;
      adapter.clearTimeout(silence);
      if (core && number === mine) answer(batch, status, header, text);
    });
    // An answer that comes later still counts.
    const silence = adapter.setTimeout(quietly(() => core && number === mine && answer(batch, 0)), SILENCE_MS);
    const body = zip ? core.zipped(number) : call(clock(), 'B');
    try {
      adapter.request({ url, headers, body, timeout: REQUEST_TIMEOUT_MS }, done);
    } catch (e) {
      done(0);
    }
  };
  const answer = (batch, status, header, text) => {
    const at = clock();
    const after = status && header ? retryAfter(header('retry-after'), at.wall) : NaN;
    const before = status && ledger().queued;
    if (sending === batch) sending = undefined;
    call(at, 'R', lines([batch, status || 0, after >= 0 ? Math.round(after) : '']) + '\n' + (text || ''));
    // A receipt takes events out of the queue, as does giving one up; what changes nothing was no receipt.
    trouble = !status ? 'no_answer' : ledger().queued === before ? 'refused' : undefined;
    pump();
  };
  const status = () => JSON.parse(call(clock(), 'l'));
  const ledger = () => status().ledger;
  // Passes on what the developer should know. What lasts, such as a disk that stays full, is said once.
  const notices = () => {
    const text = call(clock(), 'N');
    if (!text) return;
    text.split('\n').forEach((one) => {
      if (said.indexOf(one) >= 0) return;
      if (said.length === SAID_TEXTS) said = [];
      said.push(one);
      warn(one);
    });
  };
  const waiting = flushes(
    adapter,
    {
      begin: () => call(clock(), 's'),
      pump,
      ended: (last) => call(clock(), 'E', last) === '1',
      // A request that the host never answers is given up by the core as well.
      stuck: () => (sending ? undefined : status().consent !== 'granted' ? 'no_consent' : trouble || 'storage'),
      ledger,
    },
    quietly
  );

  const open = quietly((loaded, kept) => {
    if (!opening) return;
    const at = clock();
    try {
      kept.begin();
    } catch (e) {
      // It belongs to somebody else, who may end.
      if (!refused) warn(e.message);
      refused = true;
      adapter.setTimeout(() => open(loaded, kept), OPEN_RETRY_MS);
      return waiting.endAll('not_ready');
    }
    refused = false;
    core = loaded;
    place = register(kept);
    const opened = () =>
      core.call(
        0,
        at.wall,
        at.mono,
        'O'.charCodeAt(0),
        [
          lines([place, adapter.keyBytes, options.storagePrefix, adapter.entropy()]),
          configText(options, adapter),
          contextText(options, adapter, network),
        ].join('\n')
      );
    number = opened();
    // Once more: what fails only now and then is no reason to give it up.
    if (number[0] === '!') number = opened();
    if (number[0] === '!') {
      kept.giveUp(number.slice(1));
      number = opened();
    }
    if (lost) warn(lost + ' calls before init were lost');
    const calls = early;
    early = [];
    calls.forEach((one) => quietly(one[0])(one[1], one[2]));
    waiting.start();
    pump();
  });
  // Ends the core's client; what it had not persisted is gone.
  const forget = () => {
    call(clock(), 'X');
    core = sending = undefined;
    unregister(place);
    if (timer !== undefined) adapter.clearTimeout(timer);
    timer = undefined;
  };
  // Ends the waiting for a core that never came.
  const abandon = () => {
    if (early.length && options) warn(early.length + lost + ' calls were lost: the SDK never became ready');
    early = [];
  };
  const unavailable = quietly((e) => {
    opening = false;
    waiting.endAll('not_ready');
    warn('the core cannot be loaded: ' + ((e && e.message) || e));
  });
  const start = () => {
    opening = true;
    const say = (why) => warn('the storage does not work (' + why + '): events are kept in memory until they are sent');
    try {
      load(adapter, (loaded) => open(loaded, dependable(adapter.storage, options.storagePrefix, say)), unavailable, options);
    } catch (e) {
      unavailable(e);
    }
  };

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
    shown = next;
    page = next ? pageText(next) : '';
    const text = page;
    when((at) => call(at, 'p', text));
  };
  const flush = quietly((tell) => {
    waiting.add(tell);
    const never = quietly(() => core || waiting.endAll(closed ? 'closed' : 'not_ready'));
    if (!core) return opening ? adapter.setTimeout(never, refused ? REFUSED_MS : LOADING_MS) : never();
    waiting.start();
  });
  const identify = (user) => {
    if (typeof user === 'string' ? !user : typeof user !== 'number' || !isFinite(user)) {
      return warn('a user is a non-empty string or a finite number');
    }
    say('i', String(user));
  };

  const api = {
    init(given) {
      if (options) return warn('init was called twice');
      hear = given && given.onWarning;
      if (!given || !given.server || !given.key) throw new Error('init needs { server, key }');
      const server = serverText(given.server, adapter.origin);
      const storagePrefix = given.storagePrefix || 'subway.' + given.key + '.';
      options = Object.assign({}, given, { server, key: String(given.key), storagePrefix });
      start();
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
        notices();
      });
    },
    flush(tell) {
      if (typeof tell === 'function' || typeof Promise !== 'function') return flush(tell);
      return new Promise((done) => flush(done));
    },
    getDeviceId: () => (core ? call(clock(), 'd') : ''),
    getLedger: () => (core ? ledger() : emptyLedger()),
    getConsent: () => (core ? status().consent : 'unknown'),
    close() {
      opening = false;
      closed = true;
      abandon();
      let last;
      // A core that broke is closed all the same.
      quietly(() => {
        if (!core) return;
        call(clock(), 'w');
        last = ledger();
        forget();
      })();
      core = undefined;
      waiting.endAll('closed', last);
      if (adapter.release) adapter.release();
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
    /** The process may end after this, and after every later call: what was tracked is persisted at once. */
    ending: quietly(() => {
      ending = true;
      if (core) call(clock(), 'w');
      else abandon();
    }),
    /** The storage belongs to another page now: goes on with the one that `load` finds next. */
    reopen: quietly(() => {
      if (!core) return;
      forget();
      setPage(shown);
      start();
    }),
  };
  return { api, auto };
}
