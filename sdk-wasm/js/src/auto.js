// Automatic tracking: wraps what an app hands to App, Page, Component and Behavior. The app's own handler decides what is
// returned and thrown; ours run beside it and never throw.

const APP = ['onLaunch', 'onShow', 'onHide', 'onError', 'onPageNotFound', 'onUnhandledRejection', 'onThemeChange'];
const PAGE = ['onLoad', 'onReady', 'onShow', 'onHide', 'onUnload', 'onPullDownRefresh', 'onReachBottom', 'onPageScroll', 'onResize', 'onTabItemTap', 'onShareAppMessage', 'onShareTimeline', 'onAddToFavorites'];
const TAPS = { tap: 1, longpress: 1, longtap: 1 };

/** Whether it may be a handler: not a class, nor a library or a constructor that an app keeps where its handlers are. */
function isHandler(value) {
  if (typeof value !== 'function' || Object.keys(value).length) return false;
  const prototype = Object.getOwnPropertyDescriptor(value, 'prototype');
  // Arrows and methods have none. A class cannot exchange its own.
  if (!prototype || !prototype.value) return true;
  const parent = Object.getPrototypeOf(prototype.value);
  return prototype.writable && Object.getOwnPropertyNames(prototype.value).length < 2 && !(parent && Object.getPrototypeOf(parent));
}

/** Puts wrappers around the global constructors that the host has. `auto` is what createInstance gives. */
export function wrappers(auto) {
  let shown; // The page on the screen: { path, enterTs, .. }.
  let shownPage; // Its object, which tells two pages of one path apart.
  let shownAt; // When it came, by the monotonic clock.
  let appShownAt;

  const record = auto.quietly((name, code, theme, props) => {
    if (auto.enabled(name)) auto.track(code, props, { theme });
  });

  // What was wrapped, and for what: options that two pages share come here twice and must count once.
  const wrapped = new WeakMap();

  // `before` and `after` see the handler's `this` and first argument; `after` also what the handler returned.
  const around = (target, purpose, name, before, after) => {
    const own = target[name];
    if (wrapped.get(own) === purpose) return;
    const first = before && auto.quietly(before);
    const last = after && auto.quietly(after);
    const outer = function (arg) {
      let result;
      if (first) first(this, arg);
      try {
        return (result = typeof own === 'function' ? own.apply(this, arguments) : undefined);
      } finally {
        if (last) last(this, arg, result);
      }
    };
    // For `new`, which an app may use on what looks like any function.
    if (own && own.prototype) outer.prototype = own.prototype;
    wrapped.set(outer, purpose);
    target[name] = outer;
  };

  // The first handler that gets an event records it; those that it hands the event to do not.
  const taken = new WeakMap();
  const tapped = (event) => event && TAPS[event.type] && event.currentTarget;

  const taps = (target, not) => {
    Object.keys(target).forEach((name) => {
      if (not.indexOf(name) >= 0 || !isHandler(target[name])) return;
      const begin = (self, event) => tapped(event) && !taken.has(event) && taken.set(event, name);
      around(target, 'tap', name, begin, (self, event) => {
        const element = tapped(event);
        if (!element || taken.get(event) !== name) return;
        taken.set(event, '');
        record('mpClick', 'mp_click', 'click', { method: name, type: event.type, element_id: element.id || undefined, dataset: element.dataset });
      });
    });
  };

  const app = (target) => {
    taps(target, APP);
    around(target, 'app', 'onLaunch', undefined, (self, arg) => record('appLaunch', 'app_launch', 'lifecycle', source(arg)));
    around(
      target,
      'app',
      'onShow',
      () => {
        appShownAt = auto.mono();
        auto.foreground();
      },
      (self, arg) => record('appShow', 'app_show', 'lifecycle', source(arg))
    );
    around(target, 'app', 'onHide', undefined, () => {
      record('appHide', 'app_hide', 'lifecycle', { duration_ms: since(appShownAt) });
      appShownAt = undefined;
      auto.background();
    });
    return target;
  };
  const source = (arg) => ({ scene: arg && arg.scene, path: arg && arg.path, query: arg && arg.query });
  const since = (start) => (start === undefined ? undefined : Math.round(auto.mono() - start));

  const leave = () => {
    if (shownAt === undefined) return;
    record('pageLeave', 'page_leave', 'lifecycle', { duration_ms: since(shownAt) });
    shownAt = undefined;
  };
  const route = (self) => self.route || self.__route__;
  const page = (target) => {
    // Whatever Component makes comes here; only what is a page has a route.
    const onPage = (name, before, after) => {
      const guarded = (work) => work && ((self, arg, result) => route(self) && work(self, arg, result));
      around(target, 'page', name, guarded(before), guarded(after));
    };
    taps(target, PAGE);
    onPage('onLoad', (self, query) => (self.__subwayQuery = query));
    onPage(
      'onShow',
      (self) => {
        const path = route(self);
        // A page that comes back from the background was reached from where it had been reached before.
        const referrer = !shown ? '' : shownPage === self ? shown.referrer : shown.path;
        shownPage = self;
        shown = { path, referrer, enterTs: auto.now() };
        shownAt = auto.mono();
        auto.setPage(shown);
      },
      (self) => record('pageShow', 'page_view', 'view', { query: self.__subwayQuery })
    );
    onPage('onHide', undefined, leave);
    onPage('onUnload', undefined, leave);
    // Only if it is there: a page without it cannot be shared.
    if (typeof target.onShareAppMessage === 'function') {
      onPage('onShareAppMessage', undefined, (self, arg, result) =>
        record('pageShare', 'page_share', 'share', { from: arg && arg.from, title: result && result.title, path: result && result.path })
      );
    }
    return target;
  };
  // A page may be made by Component; then its handlers are among the methods.
  const component = (target) => {
    target.methods = page(target.methods || {});
    return target;
  };
  const behavior = (target) => {
    if (target.methods) taps(target.methods, PAGE);
    return target;
  };

  /** The host's constructor with `wrap` applied to what the app hands it; a failing `wrap` leaves it as it is. */
  const constructor = (original, wrap) => {
    const outer = function (target) {
      if (target && typeof target === 'object') auto.quietly(wrap)(target);
      return original.apply(this, arguments);
    };
    return Object.assign(outer, original);
  };
  return {
    App: (original) => constructor(original, app),
    Page: (original) => constructor(original, page),
    Component: (original) => constructor(original, component),
    Behavior: (original) => constructor(original, behavior),
  };
}
