import { Adapter, createInstance, Subway } from './index.js';

export * from './index.js';
/** The adapter for a mini-program host whose global object is `api`. */
export function miniAdapter(platform: string, api: object): Adapter;
/** Where subway.wasm lies in the mini-program's package, if not where npm support puts it. To be called before `init`. */
export function setWasmPath(path: string): void;
declare const subway: Subway & {
  createInstance: typeof createInstance;
  miniAdapter: typeof miniAdapter;
  setWasmPath: typeof setWasmPath;
};
export default subway;
