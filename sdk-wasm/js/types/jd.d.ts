import { Adapter, createInstance, Subway } from './index.js';

export * from './index.js';
/** The adapter for a mini-program host whose global object is `api`. */
export function miniAdapter(platform: string, api: object): Adapter;
declare const subway: Subway & { createInstance: typeof createInstance; miniAdapter: typeof miniAdapter };
export default subway;
