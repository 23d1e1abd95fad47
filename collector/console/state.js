// What is shown (kept in the address, so that a link can be shared) and what this tab may read (kept in the session).

const TOKENS = 'subway.tokens';
const RANGES = new Set(['today', '7d', '30d', 'all', 'custom']);
const INTERVALS = new Set(['hour', 'day', 'week', 'month', 'year']);
const DATE = /^\d{4}-\d{2}-\d{2}$/;

/** A day that the calendar has: browsers read 30 February as 2 March. */
function isDate(text) {
  if (!DATE.test(text ?? '')) return false;
  const time = Date.parse(`${text}T00:00:00Z`);
  return !Number.isNaN(time) && new Date(time).toISOString().startsWith(text);
}

/** The address after `#` as a view. What is missing or not understood is null: the page then chooses. */
export function readHash(hash = location.hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ''));
  const view = { app: given.get('app'), range: null, from: null, to: null, interval: null };
  if (RANGES.has(given.get('range'))) view.range = given.get('range');
  if (view.range === 'custom') {
    const [from, to] = [given.get('from'), given.get('to')];
    if (isDate(from) && isDate(to) && from <= to) Object.assign(view, { from, to });
    else view.range = null;
  }
  if (INTERVALS.has(given.get('interval'))) view.interval = given.get('interval');
  return view;
}

/** Writes the view into the address without a new entry in the history for every click. */
export function writeHash(view) {
  const pairs = { app: view.app, range: view.range };
  if (view.range === 'custom') Object.assign(pairs, { from: view.from, to: view.to });
  if (view.interval) pairs.interval = view.interval;
  const hash = `#${new URLSearchParams(pairs)}`;
  if (hash !== location.hash) history.replaceState(null, '', hash);
}

/** A token given as `#token=`: taken out of the address at once. A fragment never reaches a server or its logs. */
export function takeTokenFromHash() {
  const given = new URLSearchParams(location.hash.replace(/^#/, ''));
  const token = given.get('token');
  if (token === null) return null;
  given.delete('token');
  const rest = given.toString();
  history.replaceState(null, '', rest ? `#${rest}` : location.pathname + location.search);
  return token.trim() || null;
}

/** The tokens of this tab, the oldest first. */
export function tokens() {
  try {
    const list = JSON.parse(sessionStorage.getItem(TOKENS) ?? '[]');
    return Array.isArray(list) ? list.filter((token) => typeof token === 'string') : [];
  } catch {
    return [];
  }
}

export function keepToken(token) {
  const list = tokens().filter((other) => other !== token);
  sessionStorage.setItem(TOKENS, JSON.stringify([...list, token]));
}

export function dropToken(token) {
  sessionStorage.setItem(TOKENS, JSON.stringify(tokens().filter((other) => other !== token)));
}

export const dropAllTokens = () => sessionStorage.removeItem(TOKENS);
