// The fields of the header.

import { el } from './dom.mjs';
import { hex, meaning } from './values.mjs';

const ABOUT = {
  seed: 'of the noise', weight: 'of all frames together', base_model: 'the model that the update is added to',
  round: 'of the server',
  tensor_count: 'tensors of the schema', schema_digest: 'of the schema’s bytes', frames: 'summed',
};

/** A list of the header's fields; nothing for a schema, which has no header. */
export function headerView(what, fields, bytes) {
  const rows = fields.filter(({ part }) => part === 'header').flatMap((field) => {
    const whole = bytes.subarray(field.begin, field.end);
    const value = field.form === 'hex' ? hex(whole, '') : meaning(field, bytes);
    const about = ABOUT[field.name] ? el('span', { class: 'about' }, ` ${ABOUT[field.name]}`) : undefined;
    return [el('dt', {}, field.name), el('dd', {}, value, ...(about ? [about] : []))];
  });
  return what === 'schema' || !rows.length ? [] : [el('dl', { class: 'facts' }, ...rows)];
}
