// The table of tensors, and a card with pictures for each.

import { el, table } from './dom.mjs';
import { MOST_SHOWN } from './report.mjs';
import { LABELS, counted, float32, grouped, printable, short } from './values.mjs';
import { histogramView, pictureView } from './view_charts.mjs';

const ROWS = 500;

const fixed = (x) => (x === undefined ? '' : x.toFixed(3));

function shapeOf({ shape }) {
  return shape.length ? shape.join('×') : 'scalar';
}

const label = (kind, code) => LABELS[kind][code] ?? `unknown ${code}`;

/** How a tensor is sent, as the table of a frame or the sums of a partial sum say it. */
function sentAs(entry) {
  if (!entry) return ['', '', ''];
  if (entry.rows !== undefined) return [counted(entry.rows, 'row'), '', ''];
  if (entry.distribution !== undefined) {
    return ['sums', `${label('distribution', entry.distribution)} ${float32(entry.scale)}`, ''];
  }
  const kind = label('kind', entry.kind), coding = label('coding', entry.coding);
  if (entry.kind === 1 || entry.kind === 2) return [kind, `${label('distribution', entry.type)} ${float32(entry.scale)}`, coding];
  return [entry.kind === 3 ? 'grid' : 'elements', entry.kind === 3 ? `step ${float32(entry.scale)}` : '', coding];
}

function densityCell(measured) {
  if (measured?.density === undefined) return '';
  const bar = el('span', { class: 'bar', 'aria-hidden': 'true' }, el('span'));
  bar.firstChild.style.width = `${100 * measured.density}%`;
  return el('td', {}, fixed(measured.density), ' ', bar);
}

/** One row a tensor; `measured` may lack tensors, or all. */
export function tensorTable(what, tensors, entries, measured) {
  const count = Math.max(tensors?.length ?? 0, entries.length);
  const rows = Array.from({ length: Math.min(count, ROWS) }, (_, i) => {
    const tensor = tensors?.[i], entry = entries[i], mine = measured[i];
    const bits = entry && tensor?.n ? short((8 * entry.length) / tensor.n) : '';
    const about = tensor
      ? [el('bdi', {}, printable(tensor.name)), shapeOf(tensor), label('role', tensor.role), label('dtype', tensor.dtype)]
      : ['unknown without the schema', '', '', ''];
    const sent = what === 'schema' ? [] : [...sentAs(entry), entry ? grouped(entry.length) : '', bits];
    const found = what === 'schema' ? [] : [densityCell(mine), fixed(mine?.entropy), fixed(mine?.entropyGivenNoise)];
    return [String(i), ...about, ...sent, ...found];
  });
  const heads = ['', 'name', 'shape', 'role', 'dtype'];
  if (what !== 'schema') {
    heads.push('sent as', 'noise or step', 'coding', 'bytes', 'bits an element', 'density', 'entropy', 'entropy given noise');
  }
  const note = rows.length < count ? el('p', { class: 'note' }, `The first ${ROWS} of ${counted(count, 'tensor')}.`) : undefined;
  return [note, table('Tensors', heads, rows), what === 'schema' ? undefined : el('p', { class: 'note' }, EXPLAINED[what])];
}

const EXPLAINED = {
  frame: 'Density is the share of set bits of a mask, and of values that are not 0 otherwise. Entropy is in bits an element: of a mask '
    + 'from its density alone, and with a probability for each size of the noise (section 6.8), which codings 1 and 4 use; of a '
    + 'grid that of its integers.',
  sum: 'Density is the share of elements of the mean that are not 0.',
};

/** A card: the picture of a mask or grid, the histogram of the values, and the first values. */
export function tensorCard(i, tensor, { n, histogram, first, picture }) {
  const name = printable(tensor.name), parts = [el('h3', {}, `${i} `, el('bdi', {}, name)), el('p', { class: 'note' }, shapeOf(tensor))];
  if (picture) parts.push(pictureView(picture, n, tensor.shape, name));
  parts.push(histogramView(histogram, name));
  if (first.length) {
    const title = first.length < n ? `The first ${first.length} of ${counted(n, 'value')}` : counted(n, 'value');
    const text = first.map((x) => (tensor.dtype === 1 ? float32(x) : String(x))).join(' ');
    parts.push(el('details', {}, el('summary', {}, title), el('p', { class: 'values' }, text)));
  }
  return el('article', { class: 'card' }, ...parts);
}

/** What is said above the cards. */
export const cardsNote = (count) => (count > MOST_SHOWN ? `Pictures of the first ${MOST_SHOWN} of ${counted(count, 'tensor')}.` : undefined);
