import { Adapter, Subway } from './index.js';

export * from './index.js';
/** A further instance: on an adapter, in a folder, or without either in the `storageDir` that its `init` is given. */
export function createInstance(adapter?: Adapter | string): Subway;
export function nodeAdapter(folder: string): Adapter;
export const nodeRequest: Adapter['request'];
/** A storage in a folder that belongs to one instance at a time, until `release`. */
export function folderStorage(folder: string): Adapter['storage'] & { release(): void };
declare const subway: Subway & {
  createInstance: typeof createInstance;
  nodeAdapter: typeof nodeAdapter;
  nodeRequest: typeof nodeRequest;
  folderStorage: typeof folderStorage;
};
export default subway;
