// Elements of the page. Text from files only ever becomes text nodes and attributes; no markup is made from strings.

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.filter((child) => child !== undefined));
  return node;
}

/** An element of HTML; children are elements or text. */
export const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

/** An element of SVG. */
export const svg = (tag, attributes = {}, ...children) => {
  return fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
};

/** A table that scrolls sideways where it is too wide: the heads of its columns, and rows of cells. */
export function table(label, heads, rows) {
  const cell = (content) => (content instanceof Element && content.tagName === 'TD' ? content : el('td', {}, content));
  const body = rows.map((cells) => el('tr', {}, ...cells.map(cell)));
  const head = el('thead', {}, el('tr', {}, ...heads.map((text) => el('th', { scope: 'col' }, text))));
  const box = { class: 'wide', tabindex: '0', role: 'region', 'aria-label': label };
  return el('div', box, el('table', {}, head, el('tbody', {}, ...body)));
}

/** Shows a section with this content, or hides it if there is none. */
export function show(id, ...content) {
  const section = document.getElementById(id), body = section.querySelector('.body');
  body.replaceChildren(...content.filter((child) => child !== undefined));
  section.hidden = !body.hasChildNodes();
}
