// Browsers. The module is part of the file, so that no bundler has to find it.

import bytes from 'core:wasm';

import { base } from '../adapters/common.js';
import { webAdapter } from '../adapters/web.js';
import { loader } from '../core/wasm.js';
import { idle } from '../idle.js';
import { createInstance as create } from '../sdk.js';
import { claim, claimAny, releaseLeases, SLOTS } from '../slots.js';

const load = loader((imports) => WebAssembly.instantiate(bytes, imports).then((made) => made.instance));

/** What pages that ended left behind is looked for so often, milliseconds. */
const ADOPT_MS = 60_000;

/** Whether this is a page: servers that render pages, workers and tests import this file as well. */
const isPage = () => [typeof window, typeof document, typeof WebAssembly].every((one) => one === 'object') && typeof TextDecoder === 'function';

/** The storage of a slot for as long as the slot is held. */
function guarded(adapter, slot) {
  const { get, set, remove, keys } = adapter.storage;
  const own = (work) => (key, value) => {
    if (!slot.held()) throw Object.assign(new Error('another page has taken this storage over'), { inUse: true });
    return work(key, value);
  };
  return Object.assign(adapter, { storage: { get, set: own(set), remove: own(remove), keys } });
}

/** Gives a function that sends what pages that ended left in their slots, for `options` of `init`. */
function adopter(ownNumber) {
  // What each slot looked like when nothing was left to send.
  const emptied = new Map();
  let busy = false;
  const look = (storage, prefix) =>
    storage.keys().filter((key) => key.startsWith(prefix)).map((key) => key + storage.get(key).length).sort().join();
  const drain = async (slot, options) => {
    const { api } = create(guarded(webAdapter(slot.number), slot), load);
    try {
      // The page's own instance has said what there is to say.
      api.init({ ...options, onWarning() {} });
      return (await api.flush()).ok;
    } finally {
      api.close();
      slot.release();
    }
  };
  return async (options) => {
    const prefix = options.storagePrefix;
    if (busy) return;
    busy = true;
    try {
      for (let number = 0; number < SLOTS; number++) {
        const { storage } = webAdapter(number);
        const before = number === ownNumber() ? '' : look(storage, prefix);
        if (!before || emptied.get(number) === before) continue;
        const slot = await claim(number);
        if (slot && (await drain(slot, options))) emptied.set(number, look(storage, prefix));
      }
    } catch (e) {
      // A storage that does not work has nothing to be adopted.
    } finally {
      busy = false;
    }
  };
}

/** An instance of its own, on `adapter` or in this browser's storage. */
export function createInstance(adapter) {
  if (adapter) return create(adapter, load).api;
  if (!isPage()) return idle(base(), 'this is no web page (a server, a worker or a test)');
  const own = webAdapter(0);
  let slot;
  let look = () => {};
  let looking;
  const made = create(own, (given, done, fail, options) => {
    const adopt = adopter(() => slot && slot.number);
    const found = (next, e) => {
      slot = next;
      if (slot) {
        const { storage, queueBytes } = guarded(webAdapter(slot.number), slot);
        Object.assign(own, { storage, queueBytes });
      } else {
        own.storage = noStorage(e);
      }
      const ready = (core) => {
        done(core);
        look = () => adopt(options);
        clearInterval(looking);
        looking = setInterval(look, ADOPT_MS);
        look();
      };
      load(given, ready, fail);
    };
    claimAny().then(found, (e) => found(undefined, e));
  });
  const { auto } = made;
  // The page was frozen or kept for the back button, and what it held may be another page's now.
  const back = () => {
    if (!slot || slot.held()) return look();
    slot.release();
    auto.reopen();
  };
  const leave = () => {
    auto.background();
    releaseLeases();
  };
  const show = () => {
    if (document.visibilityState === 'hidden') return auto.background();
    auto.quietly(back)();
    auto.foreground();
  };
  const forget = listen([
    [document, 'visibilitychange', show],
    [document, 'resume', auto.quietly(back)],
    [window, 'pageshow', auto.quietly((event) => event.persisted && back())],
    [window, 'pagehide', auto.quietly(leave)],
    [window, 'online', () => look()],
  ]);
  own.release = () => {
    forget();
    clearInterval(looking);
    if (slot) slot.release();
  };
  return made.api;
}

/** What stands for a storage where the page has none. */
function noStorage(e) {
  const keys = () => {
    throw e || new Error('each storage of this site belongs to another page');
  };
  return { keys };
}

/** Adds listeners `[target, type, work]`; gives a function that removes them. */
function listen(all) {
  all.forEach(([target, type, work]) => target.addEventListener(type, work));
  return () => all.forEach(([target, type, work]) => target.removeEventListener(type, work));
}

const subway = createInstance();
export const {
  init,
  track,
  identify,
  login,
  logout,
  registerApp,
  unregisterApp,
  clearAppRegister,
  setConsent,
  getConsent,
  setPage,
  trackTimerStart,
  trackTimerEnd,
  flush,
  getDeviceId,
  getLedger,
  close,
} = subway;
export default Object.assign(subway, { createInstance, webAdapter });
export { webAdapter };
