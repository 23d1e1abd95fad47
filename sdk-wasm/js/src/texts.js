// Values for the Rust half, one a line; src/fields.rs reads them in the same order.

/** One value without what would end its line. */
export const line = (value) => (value === undefined || value === null ? '' : String(value).replace(/[\n\0]/g, ' '));
export const lines = (values) => values.map(line).join('\n');

/** No page of its own: the current one. */
export const NO_PAGE = '\n\n\n';

/** A page as fields.rs reads it. */
export function pageText(page) {
  return lines([page.path, page.title, page.referrer, page.enterTs]);
}

/** The settings; what is absent keeps the core's default. */
export function configText(options, adapter) {
  return lines([
    options.consentRequired ? 1 : 0,
    options.queueRows,
    options.queueBytes || adapter.queueBytes,
    options.batchEvents,
    options.batchBytes,
    options.flushEvents,
    options.flushIntervalMs,
    options.persistDelayMs,
    options.sessionBackgroundMs,
    options.sessionIdleMs,
  ]);
}

/** App, SDK, host, device and network; what the app gives in `options.device` goes before what the host says. */
export function contextText(options, adapter, network) {
  let found = {};
  try {
    found = adapter.system() || {};
  } catch (e) {
    // Some hosts throw before the user has agreed to their terms.
  }
  const given = options.device || {};
  const of = (name) => (given[name] === undefined ? found[name] : given[name]);
  return lines([
    options.appVersion || of('appVersion'),
    SDK_NAME,
    SDK_VERSION,
    options.platform || adapter.platform,
    of('hostApp'),
    of('hostVersion'),
    of('os'),
    of('osVersion'),
    of('brand'),
    of('model'),
    of('screen'),
    of('language'),
    of('timezone'),
    given.network || network,
  ]);
}
