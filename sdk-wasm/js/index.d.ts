/** A value that JSON can hold; what it cannot hold is left out, as JSON.stringify does. */
export type Json = string | number | boolean | null | undefined | Json[] | { [name: string]: Json };
export type Props = { [name: string]: Json };

export type Theme =
  | 'view'
  | 'click'
  | 'exposure'
  | 'order'
  | 'lifecycle'
  | 'share'
  | 'error'
  | 'performance'
  | 'network'
  | 'profile'
  | 'custom';

export interface Page {
  /** Path without query. */
  path: string;
  title?: string;
  /** The path or address it was reached from. */
  referrer?: string;
  /** When it was entered, milliseconds since the epoch. */
  enterTs?: number;
}

export interface Device {
  os?: string;
  osVersion?: string;
  brand?: string;
  model?: string;
  /** `WIDTHxHEIGHT` in logical pixels. */
  screen?: string;
  language?: string;
  /** IANA name. */
  timezone?: string;
  hostApp?: string;
  hostVersion?: string;
  appVersion?: string;
  network?: string;
}

export interface AutoTrack {
  appLaunch?: boolean;
  appShow?: boolean;
  appHide?: boolean;
  pageShow?: boolean;
  pageLeave?: boolean;
  pageShare?: boolean;
  mpClick?: boolean;
}

export interface Options {
  /**
   * The collector's http(s) address without query, for example `https://collect.example.com`; on the web also a path of the
   * page's own site. Anything else is refused by `init`, which may then be called again.
   */
  server: string | { readonly href: string };
  /** The app's key. */
  key: string;
  appVersion?: string;
  /** Which automatic events are recorded; all by default, none with `false`. */
  autoTrack?: boolean | AutoTrack;
  /** Nothing is stored or sent before `setConsent(true)`. */
  consentRequired?: boolean;
  /** Goes before what the host says about the device. */
  device?: Device;
  /** Goes before the platform that was detected. */
  platform?: string;
  /** Gzip where the host can send bytes; true by default. */
  compress?: boolean;
  /** Most events kept while offline. */
  queueRows?: number;
  /** Most bytes of events kept while offline. */
  queueBytes?: number;
  /** Most events in one request. */
  batchEvents?: number;
  /** Most bytes of events in one request. */
  batchBytes?: number;
  /** So many waiting events are sent at once. */
  flushEvents?: number;
  /** An event waits at most so long before it is sent, milliseconds. */
  flushIntervalMs?: number;
  /** An event is in the host's storage after at most this time, milliseconds; 0: after the current turn. */
  persistDelayMs?: number;
  /** Coming back after so long begins a new session, milliseconds. */
  sessionBackgroundMs?: number;
  /** So long without an event ends the session, milliseconds. */
  sessionIdleMs?: number;
  /** The storage keys of this instance begin with this. */
  storagePrefix?: string;
  /** Node.js: the folder that holds what waits, `.subway` by default; each instance, thread and process needs its own. */
  storageDir?: string;
  /** Hears what the developer should know; by default console.warn does. */
  onWarning?: (text: string) => void;
}

export interface TrackOptions {
  /** `custom` by default. */
  theme?: Theme;
  /** When it truly happened, milliseconds since the epoch; for imports. */
  trueTs?: number;
  /** The page it happened on; by default the current one. */
  page?: Page;
}

/** Where every event went: generated = acked + queued + dropped. */
export interface Ledger {
  generated: number;
  acked: number;
  queued: number;
  dropped: { [reason: string]: number };
}

/** How a flush ended. */
export interface FlushResult extends Ledger {
  /** Whether every event tracked before the flush was acknowledged, or dropped for a reason that the ledger names. */
  ok: boolean;
  /**
   * Why not: `no_answer` (the collector was not reached), `refused` (it answered, but took nothing), `no_consent`, `storage`
   * (events cannot be stored, which comes before sending), `not_ready` (before `init`, or the SDK cannot work), `closed`. What
   * waits is tried again later, except after `closed`.
   */
  reason?: 'no_answer' | 'refused' | 'no_consent' | 'storage' | 'not_ready' | 'closed';
}

/** No method throws; what goes wrong is reported to `onWarning`. */
export interface Subway {
  init(options: Options): void;
  /** Records an event; gives its ID, or undefined if it was refused or `init` is not done yet. */
  track(code: string, props?: Props | null, options?: TrackOptions): string | undefined;
  identify(userId: string | number): void;
  /** The same as `identify`. */
  login(userId: string | number): void;
  logout(): void;
  /** Adds properties to every later event. */
  registerApp(props: Props): void;
  unregisterApp(name: string): void;
  clearAppRegister(): void;
  /** `false` wipes what is stored and stops recording. */
  setConsent(granted: boolean): void;
  getConsent(): 'unknown' | 'granted' | 'denied';
  /** The page that later events happen on, where pages are not tracked automatically. */
  setPage(page: Page | null): void;
  trackTimerStart(code: string): void;
  /** Records `code` with `duration_ms` since its start. */
  trackTimerEnd(code: string, props?: Props): void;
  /**
   * Sends now what was tracked before, and always ends: with `ok`, or with a `reason` as soon as an attempt has failed or
   * none may be made yet (after a failure the SDK waits, longer each time). It does not wait for events tracked
   * afterwards. In Node.js it keeps the process alive until it ends, awaited or not; nothing else in here does.
   */
  flush(): Promise<FlushResult>;
  flush(done: (result: FlushResult) => void): void;
  /** The anonymous ID of this install; empty until the SDK is ready. */
  getDeviceId(): string;
  getLedger(): Ledger;
  /** Persists and ends this instance; its storage is free for another. */
  close(): void;
}

/** What an instance needs of its host; the packages bring adapters for theirs. */
export interface Adapter {
  platform: string;
  /** Most bytes that one storage key takes. */
  keyBytes?: number;
  queueBytes?: number;
  /** Whether `request` can send a Uint8Array. */
  binary?: boolean;
  /** Whether requests must do without headers of their own (CORS). */
  simple?: boolean;
  /** What goes before a `server` that is a mere path. */
  origin?: string;
  storage: {
    get(key: string): string | undefined;
    set(key: string, value: string): void;
    remove(key: string): void;
    keys(): string[];
  };
  /** Sends; `done(0)` means no answer. */
  request(
    request: { url: string; headers: { [name: string]: string }; body: string | Uint8Array; timeout: number },
    done: (status: number, header?: (name: string) => string | null | undefined, text?: string) => void
  ): void;
  system(): Device;
  network(tell: (type: string) => void): void;
  now(): number;
  mono(): number;
  entropy(): string;
  setTimeout(work: () => void, ms: number): unknown;
  clearTimeout(timer: unknown): void;
  warn(text: string): void;
  /** A flush waits: the process is to be kept alive until the function that this gives is called. */
  hold?(): () => void;
  /** The instance was closed. */
  release?(): void;
}

/** A further instance, on an adapter of your own or on this host's. */
export function createInstance(adapter?: Adapter): Subway;

export const init: Subway['init'];
export const track: Subway['track'];
export const identify: Subway['identify'];
export const login: Subway['login'];
export const logout: Subway['logout'];
export const registerApp: Subway['registerApp'];
export const unregisterApp: Subway['unregisterApp'];
export const clearAppRegister: Subway['clearAppRegister'];
export const setConsent: Subway['setConsent'];
export const getConsent: Subway['getConsent'];
export const setPage: Subway['setPage'];
export const trackTimerStart: Subway['trackTimerStart'];
export const trackTimerEnd: Subway['trackTimerEnd'];
export const flush: Subway['flush'];
export const getDeviceId: Subway['getDeviceId'];
export const getLedger: Subway['getLedger'];
export const close: Subway['close'];
