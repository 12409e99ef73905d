// The fields of the header.

import { el } from './dom.mjs';
import { hex, meaning } from './values.mjs';

const ABOUT = {
  seed: 'of the noise', base_model: 'the model that the update is added to',
  round: 'of the server',
  tensor_count: 'tensors of the schema', schema_digest: 'of the schema’s bytes', frames: 'summed',
};

const WEIGHT = { sum: 'of all frames together', tally: 'of each frame' };

/** A list of the header's fields; nothing for a schema, which has no header. */
export function headerView(what, fields, bytes) {
  const rows = fields.filter(({ part }) => part === 'header').flatMap((field) => {
    const whole = bytes.subarray(field.begin, field.end);
    const value = field.form === 'hex' ? hex(whole, '') : meaning(field, bytes);
    const words = field.name === 'weight' ? WEIGHT[what] : ABOUT[field.name];
    const about = words ? el('span', { class: 'about' }, ` ${words}`) : undefined;
    return [el('dt', {}, field.name), el('dd', {}, value, ...(about ? [about] : []))];
  });
  return what === 'schema' || !rows.length ? [] : [el('dl', { class: 'facts' }, ...rows)];
}
