// Runs examples/jd-miniprogram as it is: its own files, in a simulated host, against a collector over HTTP.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import vm from 'node:vm';

import { Collector } from '../testing/collector.mjs';
import { Phone } from '../testing/host.mjs';

const EXAMPLE = fileURLToPath(new URL('../../../examples/jd-miniprogram/', import.meta.url));

let collector;
before(async () => (collector = await new Collector().start()));
after(() => collector.stop());

/** Loads a file of the example with the host's `require`. */
function run(life, file) {
  const require = (name) => {
    if (name === 'subway-miniprogram') return life.sdk;
    if (name.endsWith('/config')) return { server: collector.url, key: 'demo' };
    throw new Error('the example requires ' + name);
  };
  const code = fs.readFileSync(path.join(EXAMPLE, file), 'utf8');
  vm.runInContext(`(function (require, module) {${code}\n})`, life.context, { filename: file })(require, {});
}

test('the example records what its README says, once consent is given', async () => {
  const phone = new Phone('jd');
  const life = await phone.launch();
  const opened = [];
  let modal;
  Object.assign(life.context.jd, { showModal: (options) => (modal = options), navigateTo: ({ url }) => opened.push(url) });
  const pages = JSON.parse(fs.readFileSync(path.join(EXAMPLE, 'app.json'), 'utf8')).pages;
  run(life, 'app.js');
  const app = life.appOptions;
  app.onLaunch({ scene: 1001, path: pages[0] });
  app.onShow({ scene: 1001 });
  const enter = (route, query) => {
    run(life, route + '.js');
    const page = Object.assign({}, life.pageOptions, { route });
    page.data = { ...page.data };
    page.setData = (change) => Object.assign(page.data, change);
    page.onLoad(query);
    page.onShow();
    return page;
  };
  const index = enter(pages[0], {});
  await life.advance(60_000);
  assert.equal(collector.requests.length, 0, 'nothing is sent before the user agreed');
  modal.success({ confirm: true });
  index.openItem({ type: 'tap', currentTarget: { dataset: { id: 'tea' } } });
  assert.deepEqual(opened, ['/pages/item/item?id=tea']);
  assert.equal(index.onShareAppMessage({}).path, '/pages/index/index');
  index.onHide();
  const item = enter(pages[1], { id: 'tea' });
  await life.advance(700);
  item.buy({ type: 'tap', currentTarget: { dataset: {} } });
  assert.equal(item.data.bought, true);
  app.onHide();
  await life.settle();
  assert.deepEqual(
    collector.events().map((event) => [event.theme, event.code, event.page && event.page.path].join(' ').trim()),
    [
      'lifecycle app_launch',
      'lifecycle app_show',
      'view page_view pages/index/index',
      'click mp_click pages/index/index',
      'share page_share pages/index/index',
      'lifecycle page_leave pages/index/index',
      'view page_view pages/item/item',
      'order order_placed pages/item/item',
      'custom item_decided pages/item/item',
      'click mp_click pages/item/item',
      'lifecycle app_hide pages/item/item',
    ]
  );
  const decided = collector.events().find((event) => event.code === 'item_decided');
  assert.deepEqual(decided.props, { item: 'tea', duration_ms: 700 });
  assert.deepEqual(collector.requests.at(-1).batch.common, { entry_scene: 1001 });
  assert.deepEqual(life.warnings, []);
});
