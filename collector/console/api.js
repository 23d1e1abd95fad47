// Talking to the collector that served this page: its reading API and its problem documents.

import { parse } from './json.js';
import { browserZone } from './time.js';

/** A request that was refused (status > 0) or that got no answer (status 0). */
export class Problem extends Error {
  constructor(status, title, detail, retryAfter = null) {
    super(detail || title);
    this.status = status;
    this.title = title;
    this.detail = detail;
    /** Seconds the server asks to wait, or null. */
    this.retryAfter = retryAfter;
  }
}

async function problemOf(response) {
  const retry = Number.parseInt(response.headers.get('retry-after') ?? '', 10);
  let body = {};
  try {
    body = await response.json();
  } catch {
    // A proxy in between may answer HTML; the status alone then has to do.
  }
  const title = typeof body.title === 'string' ? body.title : `The collector answered ${response.status}`;
  const detail = typeof body.detail === 'string' ? body.detail : '';
  return new Problem(response.status, title, detail, Number.isFinite(retry) ? retry : null);
}

async function get(path, token, signal) {
  let response;
  try {
    response = await fetch(path, {
      headers: { authorization: `Bearer ${token}`, accept: 'application/json' },
      cache: 'no-store',
      credentials: 'omit',
      signal,
    });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Problem(0, 'The collector does not answer', 'Is it still running? The console tries again by itself.');
  }
  if (!response.ok) throw await problemOf(response);
  try {
    return parse(await response.text());
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Problem(response.status, 'The answer is not JSON', `A proxy may stand between this page and the collector (${path}).`);
  }
}

/** `{name: value}` as a query string, without the empty ones. */
function query(parameters) {
  const pairs = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null && value !== '');
  return pairs.length === 0 ? '' : `?${new URLSearchParams(pairs)}`;
}

const appPath = (app) => `v1/apps/${encodeURIComponent(app.key)}`;

/** Every app that the token may read: `[{key, timezone, zone, token}]`, `zone` being what this browser takes for its timezone. */
export async function apps(token, signal) {
  const answer = await get('v1/apps', token, signal);
  const list = Array.isArray(answer.apps) ? answer.apps : [];
  return list.map(({ key, timezone, offset }) => ({ key, timezone, zone: browserZone(timezone, offset), token }));
}

/** Times of the first and the last event: `{first, last}`, RFC 3339 or null. */
export const extent = (app, signal) => get(`${appPath(app)}/range`, app.token, signal);

/** One metric: `{series: [{start, value}], total}`. */
export const metric = (app, name, parameters, signal) =>
  get(`${appPath(app)}/metrics/${name}${query(parameters)}`, app.token, signal);

/** Events, the newest first. */
export async function events(app, parameters, signal) {
  const answer = await get(`${appPath(app)}/events${query(parameters)}`, app.token, signal);
  return Array.isArray(answer.events) ? answer.events : [];
}
