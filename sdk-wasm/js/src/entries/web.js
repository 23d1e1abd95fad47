// Browsers. The module is part of the file, so that no bundler has to find it.

import bytes from 'core:wasm';

import { webAdapter } from '../adapters/web.js';
import { loader } from '../core/wasm.js';
import { createInstance as create } from '../sdk.js';

const load = loader((imports) => WebAssembly.instantiate(bytes, imports).then((made) => made.instance));

/** How many tabs of one origin keep a log of their own; the next one is refused a storage and tracks nothing. */
const TABS = 16;

/** The first slot that no other tab holds, for as long as this tab lives. Without Web Locks there is only one. */
function claimSlot(tell, fail) {
  if (!navigator.locks) return tell(0);
  const claim = (slot) =>
    navigator.locks.request('subway slot ' + slot, { ifAvailable: true }, (lock) => {
      if (!lock) return slot + 1 < TABS ? claim(slot + 1) : fail(new Error('each storage belongs to another tab'));
      tell(slot);
      return new Promise(() => {});
    });
  claim(0).then(undefined, fail);
}

/** An instance of its own, on `adapter` or in this browser's storage. */
export function createInstance(adapter) {
  if (adapter) return create(adapter, load).api;
  const own = webAdapter(0);
  const made = create(own, (given, done, fail) =>
    claimSlot((slot) => {
      own.storage = webAdapter(slot).storage;
      load(given, done, fail);
    }, fail)
  );
  const show = () => (document.visibilityState === 'hidden' ? made.auto.background() : made.auto.foreground());
  document.addEventListener('visibilitychange', show);
  addEventListener('pagehide', () => made.auto.background());
  return made.api;
}

const subway = createInstance();
export default subway;
export { webAdapter };
