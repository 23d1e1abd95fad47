// Building the page. Text only ever enters it through textContent: nothing that comes from an event is parsed as HTML.

export const $ = (id) => document.getElementById(id);

/** One element. `props` are attributes, except `class`, `text` and `on*` listeners; null and false leave one out. */
export function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'class') node.className = value;
    else if (name === 'text') node.textContent = value;
    else if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? '' : String(value));
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined) node.append(child);
  }
  return node;
}

/** Changes the text only when it differs, so that live regions stay quiet. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** A message with an optional button. `kind` is info, first or error. */
export function notice(kind, title, detail, action) {
  return h('div', { class: `notice ${kind}`, role: kind === 'error' ? 'alert' : null },
    h('div', { class: 'notice-text' },
      h('strong', { text: title }),
      detail ? h('p', { text: detail }) : null),
    action ? h('button', { class: 'button', type: 'button', text: action.label, onclick: action.run }) : null);
}
