// A site's storages in a browser: each belongs to one page at a time, so that no two write the same log.
//
// Whose it is, a Web Lock says. Where there are none (plain http, old browsers) a lease in localStorage does: a text that
// its page renews. Browsers slow the timers of hidden pages down to one run a minute and may freeze pages altogether, so
// a lease lasts for minutes, and who holds one looks before every write whether it is still there.

/** How many pages of one site keep a log of their own; a further one keeps its events in memory. */
export const SLOTS = 16;
/** A lease that was not renewed for so long has ended, milliseconds. */
const LEASE_MS = 180_000;
/** A lease is renewed so often, milliseconds. */
const RENEW_MS = 30_000;
/** Two pages that took one lease at once know after this time who has it, milliseconds: what one page writes to
 * localStorage reaches the others late. */
const SETTLE_MS = 200;

/** What a tab's next page asks for first. */
const HINT = 'subway slot';

/** What ends the leases of this page, also those that it is about to get. */
const leases = new Set();

const pause = (ms) => new Promise((next) => setTimeout(next, ms));

/** The slot, as `{ number, leased, held(), release() }`, or nothing if another page has it. */
export function claim(number) {
  return navigator.locks ? byLock(number).catch(() => byLease(number)) : byLease(number);
}

function byLock(number) {
  return new Promise((done, fail) => {
    const hold = (lock) => (lock ? new Promise((release) => done({ number, leased: false, held: () => true, release })) : done());
    navigator.locks.request('subway slot ' + number, { ifAvailable: true }, hold).catch(fail);
  });
}

async function byLease(number) {
  const key = 'subway lease ' + number;
  const token = Math.random().toString(36).slice(2) + Math.random().toString(36).slice(2);
  const read = () => (localStorage.getItem(key) || '').split(' ');
  const write = () => localStorage.setItem(key, token + ' ' + Date.now());
  let released = false;
  const held = () => {
    const [owner] = read();
    // The site may have cleared its whole localStorage.
    if (!owner && !released) write();
    return owner === token || (!owner && !released);
  };
  // A clock that was set back must not make a lease last for ever.
  if (Math.abs(Date.now() - read()[1]) < LEASE_MS) return undefined;
  const renewing = setInterval(() => held() && write(), RENEW_MS);
  const release = () => {
    leases.delete(release);
    clearInterval(renewing);
    released = true;
    if (held()) localStorage.removeItem(key);
  };
  leases.add(release);
  write();
  await pause(SETTLE_MS);
  if (held()) return { number, leased: true, held, release };
  release();
  return undefined;
}

/** The page ends: the next one of its tab gets at once what this one has. Locks end by themselves. */
export const releaseLeases = () => leases.forEach((release) => release());

/** The slot that the page before in this tab had, else the first free one; nothing if there is none. */
export async function claimAny() {
  let hint = null;
  try {
    hint = sessionStorage.getItem(HINT);
  } catch (e) {
    // Whoever has no sessionStorage has no localStorage either, and is told so there.
  }
  const first = +hint || 0;
  let slot = await claim(first);
  if (!slot && hint !== null) {
    // The page before may be about to end.
    await pause(SETTLE_MS);
    slot = await claim(first);
  }
  for (let number = 0; number < SLOTS && !slot; number++) if (number !== first) slot = await claim(number);
  if (slot) sessionStorage.setItem(HINT, slot.number);
  return slot;
}
