import { Adapter, createInstance, Subway } from './index.js';

export * from './index.js';
/** The adapter for the part of this site's localStorage with the number `slot`; in pages only. */
export function webAdapter(slot?: number): Adapter;
declare const subway: Subway & { createInstance: typeof createInstance; webAdapter: typeof webAdapter };
export default subway;
