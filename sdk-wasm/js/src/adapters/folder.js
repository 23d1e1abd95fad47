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

/** Gives the file `from`, whose content is `text`, the name `to`, whole or not at all, unless there is one of that name. */
function place(from, to, text) {
  try {
    fs.linkSync(from, to);
  } catch (e) {
    if (e.code === 'EEXIST') throw e;
    // Not every file system has links; then a crash may leave a claim that is empty, which ends like any other.
    fs.writeFileSync(to, text, { flag: 'wx' });
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
      fs.writeFileSync(draft, value);
      sync(draft);
      fs.renameSync(draft, file(key));
      syncFolder(folder);
    },
    remove(key) {
      claim.hold();
      fs.rmSync(file(key), { force: true });
    },
    keys() {
      claim.hold();
      return fs.readdirSync(folder).filter((name) => name.endsWith('.txt')).map((name) => decodeURIComponent(name.slice(0, -4)));
    },
    release: claim.release,
  };
}

/**
 * The file `in-use`: its first line is this claim's own text, then the process, when it started, and its machine. Its time
 * is the owner's last sign of life. `hold` takes it, or sees that it is still ours, or throws.
 */
function folderClaim(folder) {
  const name = path.join(folder, 'in-use');
  const token = randomUUID();
  const mine = [token, process.pid, STARTED, os.hostname()].join('\n');
  const read = (from) => unlessMissing(() => fs.readFileSync(from, 'utf8'));
  let beat;
  const take = () => {
    fs.mkdirSync(folder, { recursive: true });
    const draft = `${name}.${token}`;
    fs.writeFileSync(draft, mine);
    try {
      for (;;) {
        try {
          return place(draft, name, mine);
        } catch (e) {
          if (e.code !== 'EEXIST') throw e;
        }
        const owner = read(name);
        if (owner === undefined) continue;
        if (lives(owner, name)) throw inUse(folder, describe(owner));
        clear(name, owner, `${name}.${token}.old`);
      }
    } finally {
      fs.rmSync(draft, { force: true });
    }
  };
  return {
    hold() {
      if (beat) {
        const owner = read(name);
        // A process that was suspended may find that it was taken for dead.
        if (owner !== mine) throw inUse(folder, owner ? describe(owner) : 'nobody: the claim was removed');
        return;
      }
      take();
      beat = setInterval(() => {
        try {
          const now = new Date();
          if (read(name) === mine) fs.utimesSync(name, now, now);
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
      if (read(name) === mine) fs.rmSync(name, { force: true });
    },
  };
}

const describe = (owner) => {
  const [, pid, , host] = owner.split('\n');
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

/** Takes a dead owner's claim away; what another one claimed meanwhile is put back. */
function clear(name, owner, aside) {
  if (unlessMissing(() => (fs.renameSync(name, aside), true)) === undefined) return;
  try {
    const text = fs.readFileSync(aside, 'utf8');
    if (text !== owner) place(aside, name, text);
  } catch (e) {
    if (e.code !== 'EEXIST') throw e;
  } finally {
    fs.rmSync(aside, { force: true });
  }
}
