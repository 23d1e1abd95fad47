// Node.js.

import fs from 'node:fs';
import path from 'node:path';

import { folderStorage, nodeAdapter, nodeHost, nodeRequest } from '../adapters/node.js';
import { loader } from '../core/wasm.js';
import { createInstance as create } from '../sdk.js';

const load = loader((imports) => {
  const bytes = fs.readFileSync(path.join(PACKAGE_FOLDER, 'subway.wasm'));
  return new WebAssembly.Instance(new WebAssembly.Module(bytes), imports);
});

/** An instance of its own: on `adapter`, on a folder, or without either on the folder `storageDir` that init is given. */
export function createInstance(adapter) {
  if (typeof adapter === 'string') return create(nodeAdapter(adapter), load).api;
  if (adapter) return create(adapter, load).api;
  const own = nodeHost();
  return create(own, (given, done, fail, options) => {
    own.storage = folderStorage(options.storageDir || '.subway');
    load(given, done, fail);
  }).api;
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
export { nodeAdapter, nodeRequest, folderStorage };
