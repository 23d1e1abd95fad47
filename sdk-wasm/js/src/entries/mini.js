// What both mini-program packages do when they are imported: find the host, make the singleton, wrap App and Page.

import { base } from '../adapters/common.js';
import { miniAdapter } from '../adapters/mini.js';
import { wrappers } from '../auto.js';
import { idle } from '../idle.js';
import { createInstance } from '../sdk.js';

/* global jd, my, tt, swan, qq, wx, App, Page, Component, Behavior */

/** The platform and its global object. wx comes last: others offer an alias of that name. */
function host() {
  if (typeof jd === 'object' && jd) return ['jd', jd];
  if (typeof my === 'object' && my) return ['alipay', my];
  if (typeof tt === 'object' && tt) return ['tt', tt];
  if (typeof swan === 'object' && swan) return ['swan', swan];
  if (typeof qq === 'object' && qq) return ['qq', qq];
  if (typeof wx === 'object' && wx) return ['weapp', wx];
}

/** The default instance, with automatic tracking, and createInstance for further ones. */
export function miniProgram(load) {
  const found = host();
  const nothing = () => idle(base(), 'there is no mini-program here');
  const make = (adapter) => {
    if (!adapter && !found) return nothing();
    return createInstance(adapter || miniAdapter(found[0], found[1]), load).api;
  };
  let subway;
  if (found) {
    const made = createInstance(miniAdapter(found[0], found[1]), load);
    subway = made.api;
    const wrap = wrappers(made.auto);
    // A host that forbids the assignment is tracked by hand.
    made.auto.quietly(() => {
      if (typeof App === 'function') App = wrap.App(App);
      if (typeof Page === 'function') Page = wrap.Page(Page);
      if (typeof Component === 'function') Component = wrap.Component(Component);
      if (typeof Behavior === 'function') Behavior = wrap.Behavior(Behavior);
    })();
  } else subway = nothing();
  subway.createInstance = make;
  subway.miniAdapter = miniAdapter;
  subway.wrappers = wrappers;
  // For `import subway from` as some tools translate it; not among what a loop over the functions finds.
  Object.defineProperty(subway, 'default', { value: subway });
  return subway;
}
