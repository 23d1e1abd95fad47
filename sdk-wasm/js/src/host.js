// The storages that the Rust half calls, by number. An exception must not travel through WASM: failures are codes.

/** Instead of a text: the host failed. No host gives such a text, not even one that a power cut left full of zeros. host.rs
 * has the same. */
const FAILED = '\0failed';

const storages = [];

/** Makes a storage known to the Rust half; gives its number. */
export function register(storage) {
  return storages.push(storage) - 1;
}

/** Forgets a storage; the number is not used again. */
export function unregister(host) {
  storages[host] = undefined;
}

export function storage_get(host, key) {
  try {
    return storages[host].get(key);
  } catch (e) {
    return FAILED;
  }
}

export function storage_set(host, key, value) {
  try {
    storages[host].set(key, value);
    return 0;
  } catch (e) {
    return /quota|exceed|full|limit|no space|超/i.test((e && (e.errMsg || e.message || e.name)) + '') ? 2 : 1;
  }
}

export function storage_remove(host, key) {
  try {
    storages[host].remove(key);
    return 0;
  } catch (e) {
    return 1;
  }
}

export function storage_keys(host) {
  try {
    return storages[host].keys().join('\n');
  } catch (e) {
    return undefined;
  }
}
