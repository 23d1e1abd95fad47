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
  /** The collector, for example `https://collect.example.com`. */
  server: string;
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
  /** Node.js: the folder that holds what waits. */
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
   * Sends now; the promise ends when nothing waits any more or the attempt failed. Before `init`, and where the SDK cannot
   * work, it ends at once with an empty ledger.
   */
  flush(): Promise<Ledger>;
  flush(done: (ledger: Ledger) => void): void;
  /** The anonymous ID of this install; empty until the SDK is ready. */
  getDeviceId(): string;
  getLedger(): Ledger;
  /** Persists and ends this instance. */
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
}

/** A further instance; Node.js also takes a folder, and without one uses `storageDir`. */
export function createInstance(adapter?: Adapter | string): Subway;

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
