// Node.js.

import fs from 'node:fs';
import path from 'node:path';

import { nodeAdapter, nodeRequest, folderStorage } from '../adapters/node.js';
import { loader } from '../core/wasm.js';
import { createInstance as create } from '../sdk.js';

const load = loader((imports) => {
  const bytes = fs.readFileSync(path.join(PACKAGE_FOLDER, 'subway.wasm'));
  return new WebAssembly.Instance(new WebAssembly.Module(bytes), imports);
});

/** An instance of its own: on `adapter`, or on the folder `storageDir`. */
export function createInstance(adapter) {
  return create(typeof adapter === 'string' ? nodeAdapter(adapter) : adapter, load).api;
}

let singleton;

/** The default instance; its folder is `options.storageDir`, by default `.subway` in the working folder. */
export function init(options) {
  if (!singleton) singleton = createInstance((options && options.storageDir) || '.subway');
  return singleton.init(options);
}

const forward = (name) =>
  function () {
    if (singleton) return singleton[name].apply(singleton, arguments);
    throw new Error('call init first');
  };
export const track = forward('track');
export const identify = forward('identify');
export const login = forward('login');
export const logout = forward('logout');
export const registerApp = forward('registerApp');
export const unregisterApp = forward('unregisterApp');
export const clearAppRegister = forward('clearAppRegister');
export const setConsent = forward('setConsent');
export const getConsent = forward('getConsent');
export const setPage = forward('setPage');
export const trackTimerStart = forward('trackTimerStart');
export const trackTimerEnd = forward('trackTimerEnd');
export const flush = forward('flush');
export const getDeviceId = forward('getDeviceId');
export const getLedger = forward('getLedger');
export const close = forward('close');
export { nodeAdapter, nodeRequest, folderStorage };
