// The stand-ins for TextEncoder and TextDecoder against the real ones.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import * as ours from '../src/utf8.js';

const TEXTS = ['', 'plain', 'é', '京东', '🚇', 'a🚇b京é', '\u0000\u007f\u0080\u07ff\u0800\uffff\u{10000}\u{10ffff}', 'x'.repeat(10_000), '京🚇'.repeat(5000)];

test('bytes are those of the standard, also for text that is not well-formed', () => {
  for (const text of [...TEXTS, '\ud800', 'a\udc00b', '\ud83d\ud83d\ude87', '\udfff\ud800']) {
    assert.deepEqual([...new ours.TextEncoder().encode(text)], [...new TextEncoder().encode(text)]);
  }
});

test('every well-formed text comes back', () => {
  for (const text of TEXTS) assert.equal(new ours.TextDecoder().decode(new TextEncoder().encode(text)), text);
  assert.equal(new ours.TextDecoder().decode(), '');
});
