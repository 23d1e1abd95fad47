// Mini-programs with WebAssembly: WeChat (WXWebAssembly) and Douyin (TTWebAssembly) load it from the package.

import { loader } from '../core/wasm.js';
import { miniProgram } from './mini.js';

/* global WXWebAssembly, TTWebAssembly */

let path = '/miniprogram_npm/subway-miniprogram/subway.wasm';

const load = loader((imports) => {
  const wasm = typeof TTWebAssembly === 'object' ? TTWebAssembly : WXWebAssembly;
  return wasm.instantiate(path, imports).then((made) => made.instance || made);
});

const subway = miniProgram(load);

/** Where subway.wasm lies in the mini-program's package, if not where npm support puts it. To be called before init. */
subway.setWasmPath = (given) => {
  path = given;
};

module.exports = subway;
