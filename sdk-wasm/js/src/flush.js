// Who waits for a flush. Each ends: when its events have ended, or when nothing is under way that could end them.

/** What is known without a core. */
export const emptyLedger = () => ({ generated: 0, acked: 0, queued: 0, dropped: {} });

/** A flush that could not even try ends after this time, milliseconds, so that a loop around it does not spin. */
const PAUSE_MS = 100;

/**
 * `host`: `begin()` asks the core to send all it has and gives the last event's number; `pump()` lets it do so and then
 * calls `settle`; `ended(number)` whether no event up to it waits; `stuck()` why nothing is under way, or nothing;
 * `ledger()`.
 */
export function flushes(adapter, host, quietly) {
  let waiting = [];
  let hold;

  const end = (one, reason, ledger) => quietly(one.tell)(Object.assign({ ok: !reason }, reason && { reason }, ledger));
  const release = () => {
    if (hold && !waiting.length) {
      hold();
      hold = undefined;
    }
  };
  /** Ends all that wait. */
  const endAll = (reason, ledger) => {
    const all = waiting;
    waiting = [];
    all.forEach((one) => end(one, reason, ledger || emptyLedger()));
    release();
  };
  /** Ends those that have nothing more to wait for. */
  const settle = () => {
    if (!waiting.length) return;
    const stuck = host.stuck();
    const over = [];
    waiting = waiting.filter((one) => {
      if (one.number === undefined) return true;
      const ended = stuck !== 'no_consent' && host.ended(one.number);
      const done = ended || (stuck && one.due);
      if (done) over.push([one, ended ? undefined : stuck]);
      return !done;
    });
    // Only now: who is told may flush again.
    over.forEach(([one, reason]) => end(one, reason, host.ledger()));
    release();
  };
  /** Asks the core for all that wait for it to be asked. */
  const start = () => {
    const fresh = waiting.filter((one) => one.number === undefined);
    if (!fresh.length) return;
    const number = host.begin();
    fresh.forEach((one) => (one.number = number));
    host.pump();
    if (fresh.some((one) => !one.due && waiting.indexOf(one) >= 0)) {
      adapter.setTimeout(
        quietly(() => {
          fresh.forEach((one) => (one.due = true));
          settle();
        }),
        PAUSE_MS
      );
    }
  };
  return {
    add(tell) {
      // A host whose process ends when nothing is to be done is told that something is.
      if (!hold && adapter.hold) hold = adapter.hold();
      waiting.push({ tell: tell || (() => {}) });
    },
    start,
    settle,
    endAll,
    /** A request is under way: what becomes of it ends the waiting. */
    trying: () => waiting.forEach((one) => (one.due = true)),
  };
}
