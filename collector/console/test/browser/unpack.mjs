// Unpacks the browser that npm's @sparticuz/chromium carries: `node unpack.mjs NODE_MODULES_PARENT INTO`.
//
// The package would unpack itself into the system's temporary folder and take a half-written file there for a whole one;
// this writes beside the target and renames at the end, so that INTO is complete or absent.

import { createReadStream, createWriteStream, existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createBrotliDecompress } from 'node:zlib';

const [from, into] = process.argv.slice(2).map((path) => resolve(path));
const require = createRequire(join(from, 'package.json'));
const entry = require.resolve('@sparticuz/chromium');
const home = entry.slice(0, entry.lastIndexOf(join('@sparticuz', 'chromium'))) + join('@sparticuz', 'chromium');
const tar = createRequire(entry)('tar-fs');

if (!existsSync(join(into, 'chromium'))) {
  const partial = `${into}.partial`;
  rmSync(partial, { recursive: true, force: true });
  mkdirSync(partial, { recursive: true });
  const inflate = (name, target) => pipeline(createReadStream(join(home, 'bin', name)), createBrotliDecompress(), target);
  await inflate('chromium.br', createWriteStream(join(partial, 'chromium'), { mode: 0o755 }));
  await inflate('fonts.tar.br', tar.extract(join(partial, 'fonts')));
  await inflate('al2023.tar.br', tar.extract(join(partial, 'system')));
  // The browser's own font list, so that a machine without fonts draws letters too.
  writeFileSync(join(partial, 'fonts.conf'), [
    '<?xml version="1.0"?>',
    '<!DOCTYPE fontconfig SYSTEM "fonts.dtd">',
    '<fontconfig>',
    '  <include ignore_missing="yes">/etc/fonts/fonts.conf</include>',
    `  <dir>${join(into, 'fonts')}</dir>`,
    `  <cachedir>${join(into, 'fonts-cache')}</cachedir>`,
    '</fontconfig>',
    '',
  ].join('\n'));
  rmSync(into, { recursive: true, force: true });
  mkdirSync(dirname(into), { recursive: true });
  renameSync(partial, into);
}
process.stdout.write(`${join(into, 'chromium')}\n`);
