// Pictures: masks, integers and counts as pixels, histograms as bars.

import { el, svg } from './dom.mjs';
import { counted, grouped, short } from './values.mjs';

const SET = [31, 78, 168], CLEAR = [232, 236, 242], NEGATIVE = [190, 70, 30]; // red, green, blue, on any background

/** The width of a picture: the last dimensions of the shape as far as they fit, else near to a square. */
function widthOf(shape, n) {
  let width = 1;
  for (const d of shape.toReversed()) if (width * d <= 256) width *= d; else break;
  const square = Math.ceil(Math.sqrt(n));
  return n / width > 256 || n / width < 2 || width < 8 ? Math.min(Math.max(square, 1), 256) : width;
}

function canvas(n, width, colour, label) {
  const height = Math.ceil(n / width), image = new ImageData(width, height);
  for (let i = 0; i < n; i++) image.data.set([...colour(i), 255], 4 * i);
  const node = el('canvas', { width, height, role: 'img', 'aria-label': label });
  node.getContext('2d').putImageData(image, 0, 0);
  const zoom = Math.max(Math.floor(Math.min(256 / width, 192 / height, 16)), 1);
  node.style.width = `${width * zoom}px`;
  return node;
}

const mixed = (share) => CLEAR.map((clear, k) => Math.round(clear + share * (SET[k] - clear)));

/** How the content of a picture is drawn: its number of elements, title, note, and the colour of element i. */
function drawnAs({ bits, n, integers, counts, frames }) {
  if (counts) {
    const note = `counts: the darker, the more of ${counted(frames, 'frame')} have the bit set`;
    return [counts.length, 'Counts', note, (i) => mixed(counts[i] / frames)];
  }
  if (integers) {
    const sign = (i) => (integers[i] ? (integers[i] > 0 ? SET : NEGATIVE) : CLEAR);
    return [integers.length, 'Integers', 'integers: blue above 0, red below', sign];
  }
  return [n, 'Mask', 'mask: dark where the bit is set', (i) => ((bits[i >> 3] >> (i & 7)) & 1 ? SET : CLEAR)];
}

/** A mask, the integers of a grid or the counts of a tally, with a note of what is shown. */
export function pictureView(picture, all, shape, name) {
  const [count, title, note, colour] = drawnAs(picture), width = widthOf(shape, count);
  const extent = count < all ? `the first ${grouped(count)} of ${counted(all, 'element')}` : counted(count, 'element');
  const drawn = canvas(count, width, colour, `${title} of ${name}, ${extent}`);
  return el('figure', {}, drawn, el('figcaption', {}, `${note}; ${extent}, ${width} a row`));
}

/** A histogram; zeros are told in words, since they would dwarf all else, or are undefined where they are drawn as well. */
export function histogramView({ bins, from, width, zeros, others, count, least, most }, name, word = 'value') {
  if (!count) return el('p', { class: 'note' }, 'No values.');
  const ofZeros = zeros === undefined ? [] : [zeros ? `${counted(zeros, 'zero')} not drawn` : 'no zeros'];
  const left = [...ofZeros, ...(others ? [`${others} not finite`] : [])];
  const words = [`${counted(count, word)} from ${short(least)} to ${short(most)}`, ...left].join('; ');
  if (!bins.length) return el('p', { class: 'note' }, `${words}.`);
  const tallest = bins.reduce((a, b) => Math.max(a, b)), step = 320 / Math.max(bins.length, 24);
  const bars = bins.map((value, b) => {
    const height = value ? Math.max((100 * value) / tallest, 1) : 0;
    const bar = { x: b * step, y: 100 - height, width: Math.max(step - 0.6, 0.6), height };
    const range = `${short(from + b * width)} to ${short(from + (b + 1) * width)}`;
    return svg('rect', bar, svg('title', {}, `${range}: ${grouped(value)}`));
  });
  const end = bins.length * step, zero = (-from / (bins.length * width)) * end;
  const axis = zero > 0 && zero < end ? [svg('line', { x1: zero, x2: zero, y1: 0, y2: 104 })] : [];
  const label = (x, text, anchor) => svg('text', { x, y: 114, 'text-anchor': anchor }, text);
  const middle = zero > 60 && zero < end - 60 ? [label(zero, '0', 'middle')] : [];
  const last = label(Math.max(end, 130), short(from + bins.length * width), 'end');
  const labels = [label(0, short(from), 'start'), ...middle, last];
  const view = { viewBox: '0 0 320 118', role: 'img', 'aria-label': `Histogram of ${name}: ${words}`, class: 'histogram' };
  const caption = el('figcaption', {}, `${words}; bins of ${short(width)}`);
  return el('figure', {}, svg('svg', view, ...bars, ...axis, ...labels), caption);
}
