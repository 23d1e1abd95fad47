// JSON as it was sent: numbers that JavaScript cannot hold (beyond 2^53, 1e999, 1.10) keep their text.
//
// No library: the console has no dependency, and these lines are all it needs. Not the reviver of the browser's own parser
// either: the text of a number (`context.source`) is not in all browsers yet, so this parser would be needed beside it.

/** A number that is shown as it was written. */
export class ExactNumber {
  constructor(text) {
    this.text = text;
  }

  toString() {
    return this.text;
  }

  /** What arithmetic makes of it. */
  valueOf() {
    return Number(this.text);
  }
}

const SPACE = /[ \t\n\r]*/y;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const WORDS = new Map([['true', true], ['false', false], ['null', null]]);

/** One pass over a text. */
class Parser {
  #text;
  #at = 0;

  constructor(text) {
    this.#text = text;
  }

  document() {
    const value = this.#value();
    this.#space();
    if (this.#at < this.#text.length) this.#fail();
    return value;
  }

  #fail() {
    throw new SyntaxError(`not JSON at ${this.#at}`);
  }

  #space() {
    SPACE.lastIndex = this.#at;
    SPACE.test(this.#text);
    this.#at = SPACE.lastIndex;
  }

  /** Takes `mark` if it comes next. */
  #take(mark) {
    this.#space();
    if (this.#text[this.#at] !== mark) return false;
    this.#at += 1;
    return true;
  }

  #value() {
    this.#space();
    const first = this.#text[this.#at];
    if (first === '"') return this.#string();
    if (this.#take('{')) return this.#object();
    if (this.#take('[')) return this.#array();
    for (const [word, value] of WORDS) {
      if (!this.#text.startsWith(word, this.#at)) continue;
      this.#at += word.length;
      return value;
    }
    return this.#number();
  }

  #number() {
    NUMBER.lastIndex = this.#at;
    const text = NUMBER.exec(this.#text)?.[0];
    if (text === undefined) return this.#fail();
    this.#at += text.length;
    const number = Number(text);
    return String(number) === text ? number : new ExactNumber(text);
  }

  #string() {
    const from = this.#at;
    let end = this.#text.indexOf('"', from + 1);
    // A quote after an odd number of backslashes is part of the string.
    while (end >= 0 && this.#escaped(end)) end = this.#text.indexOf('"', end + 1);
    if (end < 0) this.#fail();
    this.#at = end + 1;
    return JSON.parse(this.#text.slice(from, end + 1));
  }

  #escaped(quote) {
    let count = 0;
    while (this.#text[quote - 1 - count] === '\\') count += 1;
    return count % 2 === 1;
  }

  #object() {
    const entries = [];
    if (this.#take('}')) return {};
    do {
      this.#space();
      if (this.#text[this.#at] !== '"') this.#fail();
      const name = this.#string();
      if (!this.#take(':')) this.#fail();
      entries.push([name, this.#value()]);
    } while (this.#take(','));
    if (!this.#take('}')) this.#fail();
    // Not by assignment: a property may be called __proto__.
    return Object.fromEntries(entries);
  }

  #array() {
    const values = [];
    if (this.#take(']')) return values;
    do values.push(this.#value()); while (this.#take(','));
    if (!this.#take(']')) this.#fail();
    return values;
  }
}

/** `text` as a value. A syntax error is thrown as `JSON.parse` does. */
export const parse = (text) => new Parser(text).document();

/** A value of `parse` as text, indented by two blanks a level. */
export function stringify(value, indent = '') {
  if (value instanceof ExactNumber) return value.text;
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  const inner = `${indent}  `;
  const list = Array.isArray(value);
  const items = list ? value.map((item) => stringify(item, inner))
    : Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${stringify(item, inner)}`);
  const [open, close] = list ? '[]' : '{}';
  return items.length === 0 ? open + close : `${open}\n${inner}${items.join(`,\n${inner}`)}\n${indent}${close}`;
}
