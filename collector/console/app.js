// The console's beginning: who may read what, which app is open, and the way between the sign-in page and the numbers.

import * as api from './api.js';
import { $, h, setText } from './dom.js';
import { LiveEvents } from './events.js';
import { dropAllTokens, dropToken, keepToken, readHash, takeTokenFromHash, tokens } from './state.js';
import { View } from './view.js';

/** Milliseconds until a collector that did not answer is asked again. */
const RETRY_MS = 3_000;
/** Apps that the tokens of this tab may read, by key. */
const known = new Map();
let current = null;
let view = null;
let live = null;

function addApps(apps) {
  for (const app of apps) known.set(app.key, app);
  const options = [...known.keys()].sort().map((key) => h('option', { value: key, text: key }));
  $('app').replaceChildren(...options);
  if (current) $('app').value = current.key;
}

function showSignIn(message = '') {
  current = null;
  view?.stop();
  live?.stop();
  $('console').hidden = true;
  $('signin').hidden = false;
  setText($('signin-error'), message);
  document.title = 'Subway';
  $('signin-token').value = '';
  $('signin-token').focus();
}

function openApp(app, wanted) {
  current = app;
  $('signin').hidden = true;
  $('console').hidden = false;
  $('app').value = app.key;
  view ??= new View({ onRefused: refused });
  live ??= new LiveEvents({ onNewEvents: () => view.refreshSoon(), onProblem: refused });
  live.show(app);
  view.show(app, wanted);
}

/** The open app's token is refused: forget it, and every app it opened. */
function refused(problem) {
  if (current === null) return;
  dropToken(current.token);
  for (const app of [...known.values()]) if (app.token === current.token) known.delete(app.key);
  addApps([]);
  showSignIn(problemText(problem));
}

const problemText = (problem) => [problem.title, problem.detail].filter(Boolean).join(': ');

/** What the collector says to a token: the apps it opens, or a message for the person who typed it. */
async function tryToken(token) {
  if (token === '') return { message: 'Enter a token.' };
  try {
    const apps = await api.apps(token);
    return apps.length > 0 ? { apps } : { message: 'This token opens no app.' };
  } catch (error) {
    if (error instanceof api.Problem) return { message: problemText(error), problem: error };
    throw error;
  }
}

/** One form that takes a token; `done` gets the apps it opens. */
function tokenForm(form, input, error, done) {
  $(form).addEventListener('submit', async (event) => {
    event.preventDefault();
    const button = $(form).querySelector('[type="submit"]');
    button.disabled = true;
    setText($(error), '');
    const token = $(input).value.trim();
    const { apps, message } = await tryToken(token);
    button.disabled = false;
    $(input).setAttribute('aria-invalid', String(Boolean(message)));
    if (message) {
      setText($(error), message);
      $(input).focus();
      $(input).select();
      return;
    }
    $(input).value = '';
    keepToken(token);
    addApps(apps);
    done(apps);
  });
}

/** The app that the address names, else the first of those given; a link to an unknown app asks for its token. */
function openWanted(preferred) {
  const wanted = readHash();
  const app = known.get(wanted.app) ?? preferred ?? [...known.values()][0];
  const missing = wanted.app && !known.has(wanted.app) ? wanted.app : null;
  openApp(app, missing ? { ...wanted, range: null, interval: null } : wanted);
  if (missing) askForApp(`This link is for the app “${missing}”. Enter its read token to see it.`);
}

function askForApp(hint) {
  setText($('add-hint'), hint);
  setText($('add-error'), '');
  $('add-token').value = '';
  $('add-dialog').showModal();
}

function bindEvents() {
  tokenForm('signin-form', 'signin-token', 'signin-error', (apps) => openWanted(apps[0]));
  tokenForm('add-form', 'add-token', 'add-error', (apps) => {
    $('add-dialog').close();
    openApp(apps[0], { app: apps[0].key, range: null, from: null, to: null, interval: null });
    $('app').focus();
  });
  $('add-app').addEventListener('click', () => askForApp('Each app has its own read token. It is kept until this browser tab is closed.'));
  $('add-cancel').addEventListener('click', () => $('add-dialog').close());
  $('app').addEventListener('change', () => openApp(known.get($('app').value), { app: $('app').value, range: null, from: null, to: null, interval: null }));
  $('sign-out').addEventListener('click', () => {
    dropAllTokens();
    known.clear();
    history.replaceState(null, '', location.pathname + location.search);
    showSignIn();
  });
  $('skip').addEventListener('click', (event) => {
    // The address after # is the view; the link must not replace it.
    event.preventDefault();
    $('content').focus();
  });
  addEventListener('hashchange', () => {
    if (current !== null) openWanted(current);
  });
}

/** Opens what the tokens of this tab may read. While the collector is away or busy the tokens are kept and tried again. */
async function connect() {
  let trouble = '';
  let wait = RETRY_MS;
  for (const token of tokens()) {
    const { apps, message, problem } = await tryToken(token);
    if (current !== null) return;
    if (apps) addApps(apps);
    else trouble = message;
    if (problem?.status === 401 || problem?.status === 403) dropToken(token);
    else if (problem?.retryAfter) wait = problem.retryAfter * 1_000;
  }
  if (known.size > 0) {
    openWanted();
    return;
  }
  if ($('signin').hidden) showSignIn();
  setText($('signin-error'), trouble);
  if (tokens().length > 0) setTimeout(connect, wait);
}

bindEvents();
const given = takeTokenFromHash();
if (given !== null) keepToken(given);
connect();
