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

const typeOf = ({ role, dtype }) => `${label('role', role)} ${label('dtype', dtype)}`;

const label = (kind, code) => LABELS[kind][code] ?? `unknown ${code}`;

const noiseOf = (distribution, scale) => `${label('distribution', distribution)} ${float32(scale)}`;

/** How a tensor is sent, as the table of a frame, or its entry in a partial sum or a tally, says it. */
function sentAs(entry) {
  if (!entry) return ['', '', ''];
  if (entry.rows !== undefined) return [counted(entry.rows, 'row'), '', ''];
  if (entry.distribution !== undefined) {
    return ['sums', noiseOf(entry.distribution, entry.scale), ''];
  }
  const kind = label('kind', entry.kind), coding = label('coding', entry.coding);
  if (entry.kind === 1 || entry.kind === 2) return [kind, noiseOf(entry.type, entry.scale), coding];
  return [entry.kind === 3 ? 'grid' : 'elements', entry.kind === 3 ? `step ${float32(entry.scale)}` : '', coding];
}

function densityCell(measured) {
  if (measured?.density === undefined) return '';
  const bar = el('span', { class: 'bar', 'aria-hidden': 'true' }, el('span'));
  bar.firstChild.style.width = `${100 * measured.density}%`;
  return el('td', {}, fixed(measured.density), ' ', bar);
}

const HEADS = [
  '', 'name', 'shape', 'type', 'sent as', 'noise or step', 'coding', 'bytes', 'bits/element',
  'density', 'entropy', 'given noise',
];

/** The columns that have something to say. */
function columnsOf(what, measured) {
  const last = { schema: 3, sum: measured ? 9 : 8, tally: measured ? 10 : 8, frame: measured ? 11 : 8 }[what];
  return [...HEADS.keys()].filter((column) => column <= last && !(what === 'sum' && HEADS[column] === 'coding'));
}

/** One row a tensor; `measured` may lack tensors, or all. */
export function tensorTable(what, tensors, entries, measured) {
  const columns = columnsOf(what, measured.length);
  const count = Math.max(tensors?.length ?? 0, entries.length);
  const rows = Array.from({ length: Math.min(count, ROWS) }, (_, i) => {
    const tensor = tensors?.[i], entry = entries[i], mine = measured[i];
    const bits = entry && tensor?.n ? short((8 * entry.length) / tensor.n) : '';
    const about = tensor
      ? [el('bdi', {}, printable(tensor.name)), shapeOf(tensor), typeOf(tensor)]
      : ['unknown without the schema', '', ''];
    const sent = [...sentAs(entry), entry ? grouped(entry.length) : '', bits];
    const found = [densityCell(mine), fixed(mine?.entropy), fixed(mine?.entropyGivenNoise)];
    return [String(i), ...about, ...sent, ...found].filter((_, column) => columns.includes(column));
  });
  const heads = HEADS.filter((_, column) => columns.includes(column));
  const note = (text, shown) => (shown ? el('p', { class: 'note' }, text) : undefined);
  return [
    note(`The first ${ROWS} of ${counted(count, 'tensor')}.`, rows.length < count),
    table('Tensors', heads, rows),
    note(EXPLAINED[what], measured.length),
  ];
}

const EXPLAINED = {
  frame: 'Density is the share of set bits of a mask, and of values that are not 0 otherwise. Entropy is in bits per element. '
    + 'That of a mask is computed from its density alone, and “given noise” with a probability for each size of the noise '
    + '(section 6.8), which codings 1 and 4 use. That of a grid is the entropy of its integers.',
  sum: 'Density is the share of elements of the mean that are not 0.',
  tally: 'Density is the mean count divided by the number of frames, so the share of set bits in all masks; of a dense tensor, '
    + 'the share of elements of the mean that are not 0. Entropy is that of the counts, in bits per element.',
};

/** The first of `n` numbers, to be opened. */
function firstView(first, n, word, text) {
  const title = first.length < n ? `The first ${first.length} of ${counted(n, word)}` : counted(n, word);
  return el('details', {}, el('summary', {}, title), el('p', { class: 'values' }, first.map(text).join(' ')));
}

/** A card: the picture of a mask, a grid or counts, the histograms of counts and of values, and the first of both. */
export function tensorCard(i, tensor, { n, histogram, first, picture, counted: counts }) {
  const name = printable(tensor.name);
  const parts = [el('h3', {}, `${i} `, el('bdi', {}, name)), el('p', { class: 'note' }, shapeOf(tensor))];
  if (picture) parts.push(pictureView(picture, n, tensor.shape, name));
  if (counts) {
    parts.push(histogramView(counts.histogram, `the counts of ${name}`, 'count'));
    parts.push(firstView(counts.first, n, 'count', String));
  }
  parts.push(histogramView(histogram, counts ? `the mean of ${name}` : name));
  if (first.length) parts.push(firstView(first, n, 'value', tensor.dtype === 1 ? float32 : String));
  return el('article', { class: 'card' }, ...parts);
}

/** What is said above the cards. */
export function cardsNote(count) {
  return count > MOST_SHOWN ? `Pictures of the first ${MOST_SHOWN} of ${counted(count, 'tensor')}.` : undefined;
}
