// The core as WebAssembly. How a runtime makes an instance of it differs; the rest does not.

import glue from 'core:glue';

let waiting;
let loaded;

/** A loader that gets the instance from `instantiate(imports, adapter)`, a promise of it or itself. */
export function loader(instantiate) {
  return (adapter, done, fail) => {
    if (loaded) return done(loaded);
    if (waiting) return waiting.push([done, fail]);
    waiting = [[done, fail]];
    const ready = (instance) => {
      glue.bind(instance.exports);
      loaded = glue;
      waiting.forEach((one) => one[0](loaded));
    };
    const failed = (e) => {
      const all = waiting;
      waiting = undefined;
      all.forEach((one) => one[1](e));
    };
    try {
      const made = instantiate({ './subway_bg.js': glue.imports }, adapter);
      if (typeof made.then === 'function') made.then(ready).then(undefined, failed);
      else ready(made);
    } catch (e) {
      failed(e);
    }
  };
}
