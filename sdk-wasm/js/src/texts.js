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

/**
 * Halves of surrogate pairs as U+FFFD, which is how the collector would read them. Here already, so that the text does not
 * depend on how the host writes them.
 */
const whole = (text) =>
  text.replace(/[\ud800-\udbff](?![\udc00-\udfff])/g, '\ufffd').replace(/(^|[^\ud800-\udbff])[\udc00-\udfff]/g, '$1\ufffd');

/** Most characters of a text that the SDK collects: what the wire's limit of bytes holds in any script. */
const TEXT_CHARACTERS = 680;

/**
 * App, SDK, host, device and network: the inside of a JSON object, as the wire has it. What the app gives in
 * `options.device` goes before what the host says.
 */
export function contextText(options, adapter, network) {
  let found = {};
  try {
    found = adapter.system() || {};
  } catch (e) {
    // Some hosts throw before the user has agreed to their terms.
  }
  const given = options.device || {};
  const of = (name) => (given[name] === undefined ? found[name] : given[name]);
  const context = {
    app: { version: options.appVersion || of('appVersion') },
    sdk: { name: SDK_NAME, version: SDK_VERSION },
    host: { platform: options.platform || adapter.platform, app: of('hostApp'), version: of('hostVersion') },
    device: {
      os: of('os'),
      os_version: of('osVersion'),
      brand: of('brand'),
      model: of('model'),
      screen: of('screen'),
      language: of('language'),
      timezone: of('timezone'),
    },
    network: given.network || network,
  };
  const text = JSON.stringify(context, (name, value) =>
    value && typeof value === 'object' ? value : whole(line(value).slice(0, TEXT_CHARACTERS)) || undefined
  );
  return text.slice(1, -1);
}

/** Beyond every time, and still written without an exponent. */
const NO_TIME = 9007199254740991;

/** The themes of the wire; an unknown one would be counted as something else. */
const THEMES = 'view click exposure order lifecycle share error performance network profile custom'.split(' ');

/** An event as exports.rs reads it: what goes before its page, the page if one is given, the properties. */
export function eventParts(code, props, extra) {
  const text = props === undefined || props === null ? '' : JSON.stringify(props);
  const theme = (extra && extra.theme) || 'custom';
  if (THEMES.indexOf(theme) < 0) throw new Error('unknown_theme: ' + line(theme));
  // An object or nothing would be recorded under the name that String gives it.
  if (typeof code !== 'string') throw new Error('invalid_code: the name of an event is a text');
  const given = extra && extra.trueTs;
  // What is no time is refused, and counted, by the core.
  const trueTs = given === undefined || given === null ? '' : given >= 0 && given < NO_TIME ? Math.floor(given) : NO_TIME;
  // A name with a line end must reach the core as what it refuses, not as another name.
  const name = code.replace(/[\n\0]/g, '\u0001');
  return [lines([theme, name, trueTs]), extra && extra.page ? pageText(extra.page) : '', text];
}

/** `Retry-After` (RFC 9110, 10.2.3), seconds or a date, as milliseconds from now; NaN if it says nothing. */
export function retryAfter(value, wall) {
  if (value === undefined || value === null || value === '') return NaN;
  return isNaN(value) ? Math.max(Date.parse(value) - wall, 0) : value * 1000;
}
