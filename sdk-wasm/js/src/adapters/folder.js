// Node.js: a folder as storage. It belongs to one instance at a time, in whichever process, thread or build of this package.

import { randomUUID } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

/** The owner says so often that it lives, milliseconds. */
const HEARTBEAT_MS = 10_000;
/** An owner that was silent for so long is dead, milliseconds: longer than an event loop is ever busy. */
const SILENCE_MS = 60_000;
/** The clock since the machine started and the age of the process are read one after the other, milliseconds. */
const START_TOLERANCE_MS = 100;

/** When this process started, milliseconds since the machine did: with its number it names the process. */
const STARTED = Number(process.hrtime.bigint() / 1_000_000n) - process.uptime() * 1000;

const inUse = (folder, owner) =>
  Object.assign(new Error(`the storage folder ${folder} is in use by ${owner}; give each instance a storageDir of its own`), { inUse: true });

function sync(name) {
  const handle = fs.openSync(name, 'r+');
  try {
    fs.fsyncSync(handle);
  } finally {
    fs.closeSync(handle);
  }
}

/** Makes a rename in the folder last. Windows has no such call, and needs none. */
function syncFolder(folder) {
  if (process.platform === 'win32') return;
  const handle = fs.openSync(folder, 'r');
  try {
    fs.fsyncSync(handle);
  } finally {
    fs.closeSync(handle);
  }
}

/** Whether the disk, or what the user may have of it, is full. */
const isFull = (e) => e.code === 'ENOSPC' || e.code === 'EDQUOT';

/** Gives the file `from`, whose content is `text`, the name `to`, whole or not at all, unless there is one of that name. */
function place(from, to, text) {
  try {
    fs.linkSync(from, to);
  } catch (e) {
    if (e.code === 'EEXIST') throw e;
    // Not every file system has links; then a crash may leave a claim that is empty, which ends like any other. So does a
    // disk that has room for the name alone.
    try {
      fs.writeFileSync(to, text, { flag: 'wx' });
    } catch (wrong) {
      if (!isFull(wrong)) throw wrong;
    }
  }
}

function unlessMissing(work) {
  try {
    return work();
  } catch (e) {
    if (e.code !== 'ENOENT') throw e;
    return undefined;
  }
}

/** One file a key, replaced atomically and synced. */
export function folderStorage(folder) {
  const claim = folderClaim(folder);
  const file = (key) => path.join(folder, encodeURIComponent(key) + '.txt');
  return {
    get(key) {
      claim.hold();
      return unlessMissing(() => fs.readFileSync(file(key), 'utf8'));
    },
    set(key, value) {
      claim.hold();
      const draft = file(key) + '.draft';
      try {
        fs.writeFileSync(draft, value);
        sync(draft);
        fs.renameSync(draft, file(key));
      } catch (e) {
        // What was written of it takes room that others need.
        fs.rmSync(draft, { force: true });
        throw e;
      }
      syncFolder(folder);
    },
    remove(key) {
      claim.hold();
      fs.rmSync(file(key), { force: true });
    },
    keys() {
      claim.hold();
      return fs.readdirSync(folder).filter((name) => name.endsWith('.txt')).map(decoded).filter((key) => key !== undefined);
    },
    release: claim.release,
    whenLost: claim.whenLost,
  };
}

/** The key of a file; nothing if the file is none of ours. */
function decoded(name) {
  try {
    return decodeURIComponent(name.slice(0, -4));
  } catch (e) {
    return undefined;
  }
}

/** What a file is known by although it is empty: which it is, and when it was last touched. */
const lookOf = (name) =>
  unlessMissing(() => {
    const { ino, mtimeNs } = fs.statSync(name, { bigint: true });
    return ino + ' ' + mtimeNs;
  });

/** Removes what processes that were killed left behind. Whoever is just asking for the folder is refused without it. */
function sweep(folder) {
  try {
    for (const name of fs.readdirSync(folder)) {
      if (name.startsWith('in-use.') || name.endsWith('.draft')) fs.rmSync(path.join(folder, name), { force: true });
    }
  } catch (e) {
    // It takes some room; the next owner tries again.
  }
}

/**
 * The file `in-use`: its first line is this claim's own text, then the process, when it started, and its machine; on a
 * full disk it is empty. Its time is the owner's last sign of life. `hold` takes it, or sees that it is still ours, or
 * throws. Once it is somebody else's it is not taken again before `whenLost`'s listener is told: what is known of the
 * folder is old then.
 */
function folderClaim(folder) {
  const name = path.join(folder, 'in-use');
  const token = randomUUID();
  const mine = [token, process.pid, STARTED, os.hostname()].join('\n');
  const read = (from) => unlessMissing(() => fs.readFileSync(from, 'utf8'));
  let beat;
  // Of a claim that is empty.
  let look;
  let lost = false;
  let tell;
  const put = (draft) => {
    try {
      fs.writeFileSync(draft, mine);
      place(draft, name, mine);
    } catch (e) {
      if (!isFull(e)) throw e;
      // A name alone needs no block of the disk.
      fs.closeSync(fs.openSync(name, 'wx'));
    }
    look = read(name) === mine ? undefined : lookOf(name);
  };
  const isOurs = () => read(name) === mine || (look !== undefined && lookOf(name) === look);
  const take = () => {
    fs.mkdirSync(folder, { recursive: true });
    const draft = `${name}.${token}`;
    try {
      for (;;) {
        try {
          return put(draft);
        } catch (e) {
          if (e.code !== 'EEXIST') throw e;
        }
        const seen = lookOf(name);
        const owner = read(name);
        if (owner === undefined) continue;
        if (lives(owner, name)) throw inUse(folder, describe(owner));
        clear(name, owner, seen, `${name}.${token}.old`);
      }
    } finally {
      fs.rmSync(draft, { force: true });
    }
  };
  const lose = () => {
    clearInterval(beat);
    beat = undefined;
    lost = true;
    // Later, because this may be in the middle of a write.
    const again = () => {
      lost = false;
      tell();
    };
    if (tell) setTimeout(again, 0);
  };
  const live = () => {
    if (!isOurs()) return lose();
    const now = new Date();
    fs.utimesSync(name, now, now);
    if (look !== undefined) look = lookOf(name);
  };
  return {
    hold() {
      // A process that was suspended may find that it was taken for dead.
      if (beat && !isOurs()) lose();
      if (lost) {
        const owner = read(name);
        throw inUse(folder, owner === undefined ? 'nobody: the claim was removed' : describe(owner));
      }
      if (beat) return;
      take();
      sweep(folder);
      beat = setInterval(() => {
        try {
          live();
        } catch (e) {
          // The next write says what is wrong.
        }
      }, HEARTBEAT_MS);
      beat.unref();
    },
    release() {
      if (!beat) return;
      clearInterval(beat);
      beat = undefined;
      if (isOurs()) fs.rmSync(name, { force: true });
    },
    whenLost(listener) {
      tell = listener;
    },
  };
}

const describe = (owner) => {
  const [, pid, , host] = owner.split('\n');
  if (!pid) return 'somebody who had no room to say who';
  return Number(pid) === process.pid ? 'another instance of this process' : `process ${pid}` + (host && host !== os.hostname() ? ` on ${host}` : '');
};

function lives(owner, name) {
  const [, pid, started, host] = owner.split('\n');
  const seen = unlessMissing(() => fs.statSync(name).mtimeMs);
  if (seen === undefined || Math.abs(Date.now() - seen) > SILENCE_MS) return false;
  // Another machine, or another container on this volume: only its signs of life can tell.
  if (host !== os.hostname()) return true;
  if (Number(pid) === process.pid) return Math.abs(Number(started) - STARTED) < START_TOLERANCE_MS;
  try {
    process.kill(Number(pid), 0);
    return true;
  } catch (e) {
    return e.code === 'EPERM';
  }
}

/** Takes a dead owner's claim away, which is `owner` and looks like `seen`; what another one claimed meanwhile is put back. */
function clear(name, owner, seen, aside) {
  if (unlessMissing(() => (fs.renameSync(name, aside), true)) === undefined) return;
  try {
    const text = unlessMissing(() => fs.readFileSync(aside, 'utf8'));
    if (text !== undefined && (text !== owner || lookOf(aside) !== seen)) place(aside, name, text);
  } catch (e) {
    if (e.code !== 'EEXIST') throw e;
  } finally {
    fs.rmSync(aside, { force: true });
  }
}
