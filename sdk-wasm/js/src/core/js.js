// The core as JavaScript (wasm2js), for runtimes without WebAssembly: it is there at once.

import glue from 'core:glue';
import instantiate from 'core:js';

let loaded;

export function load(adapter, done) {
  if (!loaded) {
    glue.bind(instantiate(glue.imports));
    loaded = glue;
  }
  done(loaded);
}
