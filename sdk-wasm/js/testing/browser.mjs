// A real headless Chromium: the machine's own, or the one inside an npm package.

import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const INSTALLED = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome', '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome'];

/** Starts it, with further arguments; gives puppeteer's browser. */
export async function launchBrowser(more = []) {
  const require = createRequire(path.join(process.env.SUBWAY_TOOLS, 'package.json'));
  const puppeteer = require('puppeteer-core');
  const own = process.env.SUBWAY_CHROMIUM || INSTALLED.find((file) => fs.existsSync(file));
  if (own) return puppeteer.launch({ executablePath: own, headless: true, args: ['--no-sandbox', '--disable-dev-shm-usage', ...more] });
  const packed = require('@sparticuz/chromium');
  const chromium = packed.default || packed;
  return puppeteer.launch({ executablePath: await chromium.executablePath(), headless: 'shell', args: [...chromium.args, ...more] });
}
