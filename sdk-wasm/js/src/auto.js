// Automatic tracking: wraps what an app hands to App, Page, Component and Behavior. The app's own handler decides what is
// returned and thrown; ours run beside it and never throw.

const APP = ['onLaunch', 'onShow', 'onHide', 'onError', 'onPageNotFound', 'onUnhandledRejection', 'onThemeChange'];
const PAGE = ['onLoad', 'onReady', 'onShow', 'onHide', 'onUnload', 'onPullDownRefresh', 'onReachBottom', 'onPageScroll', 'onResize', 'onTabItemTap', 'onShareAppMessage', 'onShareTimeline', 'onAddToFavorites'];
const TAPS = { tap: 1, longpress: 1, longtap: 1 };

/** Puts wrappers around the global constructors that the host has. `auto` is what createInstance gives. */
export function wrappers(auto) {
  let shown; // The page on the screen: { path, enterTs, .. }.
  let shownAt; // When it came, by the monotonic clock.
  let appShownAt;

  const record = auto.quietly((name, code, theme, props) => {
    if (auto.enabled(name)) auto.track(code, props, { theme });
  });

  // `before` and `after` see the handler's `this` and first argument; `after` also what the handler returned.
  const around = (target, name, before, after) => {
    const own = target[name];
    const first = before && auto.quietly(before);
    const last = after && auto.quietly(after);
    target[name] = function (arg) {
      let result;
      if (first) first(this, arg);
      try {
        return (result = typeof own === 'function' ? own.apply(this, arguments) : undefined);
      } finally {
        if (last) last(this, arg, result);
      }
    };
  };

  const taps = (target, not) => {
    Object.keys(target).forEach((name) => {
      if (typeof target[name] !== 'function' || not.indexOf(name) >= 0) return;
      around(target, name, undefined, (self, event) => {
        const element = event && TAPS[event.type] && event.currentTarget;
        if (!element) return;
        record('mpClick', 'mp_click', 'click', { method: name, type: event.type, element_id: element.id || undefined, dataset: element.dataset });
      });
    });
  };

  const app = (target) => {
    taps(target, APP);
    around(target, 'onLaunch', undefined, (self, arg) => record('appLaunch', 'app_launch', 'lifecycle', source(arg)));
    around(
      target,
      'onShow',
      () => {
        appShownAt = auto.mono();
        auto.foreground();
      },
      (self, arg) => record('appShow', 'app_show', 'lifecycle', source(arg))
    );
    around(target, 'onHide', undefined, () => {
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
  const page = (target) => {
    taps(target, PAGE);
    around(target, 'onLoad', (self, query) => (self.__subwayQuery = query));
    around(
      target,
      'onShow',
      (self) => {
        const path = self.route || self.__route__ || '';
        // A page that comes back from the background was reached from where it had been reached before.
        const referrer = !shown ? '' : shown.path === path ? shown.referrer : shown.path;
        shown = { path, referrer, enterTs: auto.now() };
        shownAt = auto.mono();
        auto.setPage(shown);
      },
      (self) => record('pageShow', 'page_view', 'view', { query: self.__subwayQuery })
    );
    around(target, 'onHide', undefined, leave);
    around(target, 'onUnload', undefined, leave);
    // Only if it is there: a page without it cannot be shared.
    if (typeof target.onShareAppMessage === 'function') {
      around(target, 'onShareAppMessage', undefined, (self, arg, result) =>
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
    const wrapped = function (target) {
      if (target && typeof target === 'object') auto.quietly(wrap)(target);
      return original.apply(this, arguments);
    };
    return Object.assign(wrapped, original);
  };
  return {
    App: (original) => constructor(original, app),
    Page: (original) => constructor(original, page),
    Component: (original) => constructor(original, component),
    Behavior: (original) => constructor(original, behavior),
  };
}
