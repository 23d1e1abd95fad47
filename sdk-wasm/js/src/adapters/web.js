// Browsers: localStorage, fetch.

import { base, timezone } from './common.js';

/** A browser gives an origin about 5 million characters of localStorage, and the site needs most of them. So the first of its
 * pages gets a tenth, and each of the others that are open at once a hundredth: all together less than two fifths. */
const QUEUE_BYTES = 512 * 1024;
const FURTHER_QUEUE_BYTES = 64 * 1024;

/** Browsers let requests outlive their page only while those under way have no more than 64 KiB of bodies together. */
const KEEPALIVE_BYTES = 60_000;

/** The part of localStorage that is called `slot`; the first one has no name. */
function webStorage(slot) {
  const prefix = slot ? 'tab' + slot + ' ' : '';
  return {
    get(key) {
      const value = localStorage.getItem(prefix + key);
      return value === null ? undefined : value;
    },
    set: (key, value) => localStorage.setItem(prefix + key, value),
    remove: (key) => localStorage.removeItem(prefix + key),
    keys: () =>
      Object.keys(localStorage)
        .filter((key) => key.slice(0, prefix.length) === prefix)
        .map((key) => key.slice(prefix.length)),
  };
}

/** The adapter; `slot` keeps the pages of one origin apart, so that no two write the same log. */
export function webAdapter(slot) {
  return Object.assign(base(), {
    platform: 'web',
    keyBytes: 1024 * 1024,
    queueBytes: slot ? FURTHER_QUEUE_BYTES : QUEUE_BYTES,
    binary: true,
    // No header that would make the browser ask first (CORS preflight); the collector knows gzip by its magic bytes.
    simple: true,
    // Before an address that is a mere path.
    origin: location.origin,
    storage: webStorage(slot),
    request(request, done) {
      const keepalive = new Blob([request.body]).size < KEEPALIVE_BYTES && document.visibilityState === 'hidden';
      const abort = new AbortController();
      const timer = setTimeout(() => abort.abort(), request.timeout);
      fetch(request.url, { method: 'POST', headers: request.headers, body: request.body, keepalive, credentials: 'omit', signal: abort.signal })
        .then((answer) => answer.text().then((text) => done(answer.status, (name) => answer.headers.get(name), text)))
        .catch(() => done(0))
        .then(() => clearTimeout(timer));
    },
    system: () => ({
      hostApp: location.hostname,
      os: (navigator.userAgentData && navigator.userAgentData.platform) || navigator.platform,
      screen: screen.width + 'x' + screen.height,
      language: navigator.language,
      timezone: timezone(),
    }),
    network(tell) {
      const connection = navigator.connection;
      const say = () => tell(navigator.onLine === false ? 'none' : (connection && (connection.type || connection.effectiveType)) || 'unknown');
      say();
      addEventListener('online', say);
      addEventListener('offline', say);
    },
  });
}
