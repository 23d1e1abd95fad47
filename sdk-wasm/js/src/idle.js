// The API where it cannot work: in tests, on servers, in workers. Every call is there, does nothing, and the first says so.

import { createInstance } from './sdk.js';

/** `base` is an adapter without storage and requests; `why` is what is said once. */
export function idle(base, why) {
  const { api } = createInstance(base, () => {});
  let said = false;
  Object.keys(api).forEach((name) => {
    // What answers does so as before init.
    const work = /^get|^flush/.test(name) ? api[name] : () => {};
    api[name] = function () {
      if (!said) base.warn('subway: ' + why + '; nothing is recorded');
      said = true;
      return work.apply(null, arguments);
    };
  });
  return api;
}
