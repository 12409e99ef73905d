// The outcome of the checks.

import { CHECKS } from './checks.mjs';
import { el } from './dom.mjs';
import { counted, grouped, printable } from './values.mjs';

const MUST = {
  frame: 'A decoder MUST refuse the frame unless', sum: 'A reader MUST refuse the partial sum unless',
  tally: 'A reader MUST refuse the tally unless', schema: 'A reader MUST refuse the schema unless',
};
const SECTION = { frame: '7', sum: '8.5', tally: '8.6', schema: '5.2 and 7.3' };
const UNASKED = {
  frame: 'No round, base model or seed was expected, so [F-12], [F-13] and [F-14] compared nothing.',
  tally: 'No seed was expected, so [T-09] compared nothing.',
};

/** The groups of checks that are made of some content, in their order. */
const groupsOf = (what) => CHECKS[what];

const textOf = (what, number) => {
  const found = groupsOf(what).flatMap(({ checks }) => checks).find((check) => check.number === number);
  return found ? `${MUST[what]} ${found.text}.` : CHECKS.other[number];
};

function facts(pairs) {
  const known = pairs.filter(([, text]) => text !== undefined);
  const items = known.flatMap(([name, text]) => [el('dt', {}, name), el('dd', {}, text)]);
  return el('dl', { class: 'facts' }, ...items);
}

function failed(what, error, title) {
  const { number, code, field, offset, expected, got } = error;
  const place = offset === undefined ? undefined : `byte ${grouped(offset)}`;
  return [
    el('p', { class: 'verdict fails' }, `${title} [${number}]`),
    el('p', { class: 'must' }, `[${number}] ${textOf(what, number)}`),
    facts([
      ['code', `${code}, ${error.class}`], ['field', field], ['place', place],
      ['expected', printable(expected)], ['got', printable(got)],
    ]),
  ];
}

/** The verdict, and below it what was checked. */
export function verdictView(what, verdict, checksum) {
  const { passed, error, missing, stopped, late, broken, mean } = verdict;
  const parts = [];
  if (passed) {
    parts.push(el('p', { class: 'verdict passes' }, `All checks of section ${SECTION[what]} passed.`));
    if (UNASKED[what]) parts.push(el('p', {}, UNASKED[what]));
    if (mean) parts.push(...failed(what, mean, 'The mean is refused:'));
  } else if (error?.code === 'limit') {
    parts.push(...failed(what, error, 'Beyond a limit of this page:'));
  } else if (error) {
    parts.push(...failed(what, error, 'The check fails:'));
  } else if (missing) {
    parts.push(...needed(what));
  } else if (stopped) {
    const text = `Not checked: its tensors have ${counted(stopped.elements, 'element')}, and this page decodes at most `
      + `${grouped(stopped.most)}. The command fedmrn verify has no such limit.`;
    parts.push(el('p', { class: 'verdict' }, text));
  } else if (late) {
    const text = `Stopped after ${late} seconds without an answer. Use the command fedmrn verify.`;
    parts.push(el('p', { class: 'verdict' }, text));
  } else {
    parts.push(el('p', { class: 'verdict fails' }, `This page failed, which is a mistake of the page: ${printable(broken)}`));
  }
  if (checksum) parts.push(el('p', {}, checksumText(checksum)));
  if (passed || error || missing) parts.push(checkList(what, verdict));
  return parts;
}

function needed(what) {
  const how = 'Give it in the second field above: its bytes, the JSON of fedmrn schema, or a frame that embeds it.';
  const [name, made] = {
    frame: ['frame', 'The header was checked. The table is shown as far as it can be read; names and values need the schema '
      + '[F-09].'],
    sum: ['partial sum', 'No check was made, and the sums cannot be told apart.'],
    tally: ['tally', 'No check was made, and the counts cannot be told apart.'],
  }[what];
  const title = `The schema is needed: this ${name} does not contain it.`;
  return [el('p', { class: 'verdict' }, title), el('p', {}, `${made} ${how}`)];
}

function checksumText({ found, right }) {
  const word = (x) => `0x${x.toString(16).padStart(8, '0')}`;
  if (found === right) return `The checksum ${word(found)} is right.`;
  return `The checksum is ${word(found)}; that of the bytes is ${word(right)}.`;
}

/** All checks by group: groups before the one at fault have passed, those behind it were not reached. */
function checkList(what, { error, missing }) {
  const groups = groupsOf(what), number = missing ? 'F-09' : error?.number;
  const none = what !== 'frame' && missing;
  const at = none ? 0 : groups.findIndex(({ checks }) => checks.some((check) => check.number === number));
  const last = at < 0 ? groups.length : at;
  const items = groups.map(({ name, checks }, g) => {
    const state = g < last ? 'passed' : g > last || none ? 'not made' : 'stopped here';
    const list = checks.map((check) => {
      const bad = check.number === number && !missing;
      return el('li', bad ? { class: 'bad' } : {}, `[${check.number}] ${check.text}${bad ? ': fails' : ''}`);
    });
    return el('li', {}, el('span', {}, `${name}: ${state}`), el('ul', {}, ...list));
  });
  return el('details', { class: 'checks' }, el('summary', {}, 'The checks in their order'), el('ol', {}, ...items));
}
