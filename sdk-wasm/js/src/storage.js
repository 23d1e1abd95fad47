// A storage that the Rust half can rely on: the host's, or memory where the host's never works.

/** Keeps texts for as long as the app lives. */
function memoryStorage() {
  const kept = new Map();
  return {
    get: (key) => kept.get(key),
    set: (key, value) => void kept.set(key, value),
    remove: (key) => void kept.delete(key),
    keys: () => Array.from(kept.keys()),
  };
}

/**
 * `given` until it turns out that it never works: it cannot be listed, or it refuses even the first text although
 * nothing of this instance (`prefix`) is in it. Then memory, once and for all, because a storage that comes and goes
 * would bring back an old state. `tell` hears why.
 */
export function dependable(given, prefix, tell) {
  let real = given;
  // Whether it holds something of ours, so that its failures are the core's to deal with.
  let proven = false;
  const giveUp = (e) => {
    real = memoryStorage();
    proven = true;
    tell((e && (e.message || e.errMsg)) || String(e));
  };
  return {
    /** To be called before anything else; throws if the storage belongs to somebody else (`inUse`). */
    begin() {
      try {
        if (!proven) proven = real.keys().some((key) => key.slice(0, prefix.length) === prefix);
      } catch (e) {
        if (e && e.inUse) throw e;
        giveUp(e);
      }
    },
    giveUp,
    get: (key) => real.get(key),
    set(key, value) {
      if (proven) return real.set(key, value);
      try {
        real.set(key, value);
      } catch (_) {
        // Once more: what fails only now and then is no reason to give it up.
        try {
          real.set(key, value);
        } catch (e) {
          if (e && e.inUse) throw e;
          giveUp(e);
          real.set(key, value);
        }
      }
      proven = true;
    },
    remove: (key) => real.remove(key),
    keys: () => real.keys(),
  };
}
