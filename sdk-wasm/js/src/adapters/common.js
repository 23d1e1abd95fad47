// What hosts have in common.

/** A monotonic clock from the host's own, or from the wall clock without its backward jumps. */
export function monotonic() {
  if (typeof performance === 'object' && performance && typeof performance.now === 'function') return () => performance.now();
  let last = Date.now();
  let sum = 0;
  return () => {
    const next = Date.now();
    if (next > last) sum += next - last;
    last = next;
    return sum;
  };
}

/** So many numbers of chance are asked for: more than the 128 bits of state that engines keep behind them. */
const CHANCES = 8;
let asked = 0;

/** A text that hardly ever comes twice: from the crypto source where there is one, and always from time and chance. */
export function entropy() {
  // The count, for engines whose chance begins anew with every context.
  let text = Date.now() + ' ' + asked++;
  for (let n = 0; n < CHANCES; n++) text += ' ' + Math.random();
  try {
    text += crypto.getRandomValues(new Uint8Array(32)).join(' ');
  } catch (e) {
    // Not every runtime has one.
  }
  return text;
}

export function timezone() {
  try {
    return Intl.DateTimeFormat().resolvedOptions().timeZone;
  } catch (e) {
    return undefined;
  }
}

/** The parts of an adapter that every JavaScript runtime has. */
export function base() {
  return {
    now: () => Date.now(),
    mono: monotonic(),
    entropy,
    setTimeout: (work, ms) => setTimeout(work, ms),
    clearTimeout: (timer) => clearTimeout(timer),
    warn: (text) => console.warn(text),
  };
}
