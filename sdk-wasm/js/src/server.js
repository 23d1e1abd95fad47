// The address of the collector, as `init` is given it.

/** A scheme, a host without a user, a path; no query, because the path of the wire is put behind it. */
const ADDRESS = /^https?:\/\/[^\s\/?#@:][^\s?#@]*$/i;

/** The address as a text without a slash at its end; throws what is wrong with it. `origin` goes before a mere path. */
export function serverText(given, origin) {
  // A `URL` as well as a text.
  let text = String(given);
  if (origin && /^\/(?!\/)/.test(text)) text = origin + text;
  let valid = ADDRESS.test(text);
  try {
    // Ports and names that cannot be; not every runtime has it.
    if (valid && typeof URL === 'function') new URL(text);
  } catch (e) {
    valid = false;
  }
  if (!valid) throw new Error('init: `server` must be an http(s) address without query, such as https://collect.example.com; it is ' + text.slice(0, 200));
  return text.replace(/\/+$/, '');
}
