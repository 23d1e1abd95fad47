// Node.js.

import bytes from 'core:wasm';

import { folderStorage } from '../adapters/folder.js';
import { nodeAdapter, nodeHost, nodeRequest } from '../adapters/node.js';
import { loader } from '../core/wasm.js';
import { createInstance as create } from '../sdk.js';

// The module is part of the file, so that a bundled server finds it; and there at once, so that no event waits for it.
const load = loader((imports) => new WebAssembly.Instance(new WebAssembly.Module(bytes), imports));

/** What is to be persisted before the process or worker thread ends. One listener for all: Node.js warns of many. */
const living = new Map();
function atExit() {
  for (const [auto, release] of living) {
    auto.ending();
    release();
  }
}

/** An instance on `adapter`, whose events are on disk when the process has ended. */
function make(adapter, loadCore) {
  const release = () => adapter.release && adapter.release();
  const own = Object.create(adapter);
  own.release = () => living.delete(made.auto) && release();
  const made = create(own, (given, done, fail, options) => {
    if (!living.size) {
      process.removeListener('exit', atExit);
      process.on('exit', atExit);
    }
    living.set(made.auto, release);
    const ready = (core) => {
      // The folder was taken away, from a process that was suspended or by whoever tidies up: what it holds now is read anew.
      if (own.storage.whenLost) own.storage.whenLost(made.auto.reopen);
      done(core);
    };
    loadCore(given, ready, fail, options);
  });
  return made.api;
}

/** An instance of its own: on `adapter`, on a folder, or without either on the folder `storageDir` that init is given. */
export function createInstance(adapter) {
  if (typeof adapter === 'string') return make(nodeAdapter(adapter), load);
  if (adapter) return make(adapter, load);
  const host = nodeHost();
  return make(host, (given, done, fail, options) => {
    host.storage = folderStorage(options.storageDir || '.subway');
    host.release = host.storage.release;
    load(given, done, fail);
  });
}

/** The default instance; its folder is `options.storageDir`, by default `.subway` in the working folder. */
const singleton = createInstance();
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
} = singleton;
export default Object.assign({ createInstance, nodeAdapter, nodeRequest, folderStorage }, singleton);
export { nodeAdapter, nodeRequest, folderStorage };
