// JSON as it was sent: nothing that arrived is shown as another number.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ExactNumber, parse, stringify } from '../json.js';

const again = (text) => stringify(parse(text)).replace(/\n\s*/g, '');

test('ordinary values are those of the browser\'s own parser', () => {
  for (const text of ['0', '-1', '1.5', '9007199254740991', '"a\\"b\\\\"', '""', 'true', 'false', 'null', '[]', '{}', ' [1, {"a": [null]} ] ',
    '{"__proto__": 1, "b": {"c": "\\u9875\\n"}}', '"\\ud83d\\ude00"', '{"a":1,"a":2}']) {
    assert.deepEqual(parse(text), JSON.parse(text), text);
    assert.equal(stringify(parse(text)), JSON.stringify(JSON.parse(text), null, 2), text);
  }
});

test('numbers that JavaScript cannot hold keep their text', () => {
  for (const text of ['9007199254740993', '-9007199254740993', '18446744073709551616', '123456789012345678901234567890', '1e999', '-1e999', '0.10', '1.0', '-0',
    '3.141592653589793238462643383279']) {
    assert.ok(parse(text) instanceof ExactNumber, text);
    assert.equal(again(text), text);
  }
  assert.equal(again('{"n":[9007199254740993,{"m":1e999}]}'), '{"n": [9007199254740993,{"m": 1e999}]}');
  assert.equal(String(parse('9007199254740993')), '9007199254740993');
});

test('half a surrogate stays visible as what it is', () => {
  assert.equal(again('"a\\ud800b"'), '"a\\ud800b"');
});

test('what is not JSON is refused', () => {
  for (const text of ['', ' ', '{', '[1,]', '{"a"}', '{"a":}', '{a:1}', '01', '1.', '.5', '+1', '"a', '"\\x"', 'nul', '[1] 2', 'NaN', '"a\nb"', "'a'"]) {
    assert.throws(() => parse(text), SyntaxError, text);
    assert.throws(() => JSON.parse(text), SyntaxError, text);
  }
});
