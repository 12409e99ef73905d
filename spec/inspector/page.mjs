// The page: takes files, has a worker read them, and shows what it reports.

import { hasMagic } from './contents.mjs';
import { el, show } from './dom.mjs';
import { counted, printable } from './values.mjs';
import { bytesView, faultAt, fieldsView, partsView } from './view_bytes.mjs';
import { histogramView } from './view_charts.mjs';
import { headerView } from './view_header.mjs';
import { cardsNote, tensorCard, tensorTable } from './view_tensors.mjs';
import { verdictView } from './view_verdict.mjs';

const MOST_BYTES = 2 ** 26;
const PATIENCE = 60; // seconds
const NAMES = { frame: 'frame', sum: 'partial sum', tally: 'tally', schema: 'schema' };
const SECTIONS = ['verdict', 'header', 'parts', 'tensors', 'total', 'cards', 'bytes', 'fields'];

const byId = (id) => document.getElementById(id);

/** Starts the page. `program` is the text of this program, which a worker runs as well. */
export function start(program) {
  const page = new Page(program);
  page.listen();
  const given = JSON.parse(byId('given').textContent);
  if (given) page.openGiven(given);
}

class Page {
  constructor(program) {
    this.program = URL.createObjectURL(new Blob([program], { type: 'text/javascript' }));
    this.subject = undefined; // { name, bytes }
    this.schema = undefined; // the same: a schema in any form
    this.wantsSchema = false; // whether the subject cannot be read without one
    this.worker = undefined;
    this.timer = undefined;
  }

  listen() {
    byId('file').addEventListener('change', ({ target }) => this.take([...target.files]));
    byId('schema-file').addEventListener('change', ({ target }) => this.take([...target.files], true));
    byId('as').addEventListener('change', () => this.read());
    byId('forget').addEventListener('click', () => this.useSchema(undefined));
    const over = (on) => (event) => {
      event.preventDefault();
      document.body.classList.toggle('over', on);
    };
    document.addEventListener('dragover', over(true));
    document.addEventListener('dragleave', over(false));
    document.addEventListener('drop', (event) => {
      over(false)(event);
      this.take([...event.dataTransfer.files]);
    });
  }

  openGiven({ name, bytes, as, schema }) {
    const decoded = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    this.schema = schema && { name: schema.name, bytes: decoded(schema.bytes) };
    byId('as').value = as ?? '';
    this.subject = { name, bytes: decoded(bytes) };
    this.read();
  }

  /** Takes files that were chosen or dropped. */
  async take(files, isSchema = false) {
    document.body.dataset.state = 'working';
    await this.open(files, isSchema);
    if (!this.worker) document.body.dataset.state = 'done';
  }

  /** Reads files: one to look at, and a schema. */
  async open(files, isSchema) {
    for (const file of files) {
      if (file.size > MOST_BYTES) {
        const most = counted(MOST_BYTES, 'byte');
        this.say(`${printable(file.name)} has ${counted(file.size, 'byte')}; this page reads at most ${most}.`, true);
        return;
      }
    }
    const load = async (file) => ({ name: file.name, bytes: new Uint8Array(await file.arrayBuffer()) });
    let read;
    try {
      read = await Promise.all(files.map(load));
    } catch (error) {
      this.say(`The browser cannot read this file: ${printable(String(error.message))}`, true);
      return;
    }
    if (isSchema) read.forEach((file) => this.useSchema(file));
    else if (read.length === 1 && this.wantsSchema && !hasMagic(read[0].bytes)) this.useSchema(read[0]);
    else if (read.length) {
      this.subject = read.find(({ bytes }) => hasMagic(bytes)) ?? read[0];
      this.schema = read.find((file) => file !== this.subject) ?? this.schema;
      this.read();
    }
  }

  /** Takes a schema for frames, partial sums and tallies; undefined: none. */
  useSchema(file) {
    if (!file) byId('schema-file').value = '';
    this.schema = file;
    this.showSchemaName();
    this.read();
  }

  showSchemaName() {
    byId('schema-name').textContent = this.schema ? `The schema of ${printable(this.schema.name)} is used.` : '';
    byId('forget').hidden = !this.schema;
  }

  say(text, bad = false) {
    byId('status').textContent = text;
    byId('status').classList.toggle('fails', bad);
  }

  /** Has a worker read the subject; a worker that was at work is ended. */
  read() {
    if (!this.subject) return;
    this.stop();
    SECTIONS.forEach((id) => show(id));
    this.showSchemaName();
    this.say(`${printable(this.subject.name)}: being read.`);
    document.body.dataset.state = 'working';
    this.run({ bytes: this.subject.bytes, as: byId('as').value, given: this.schema?.bytes });
  }

  run(request) {
    const worker = new Worker(this.program);
    let view;
    this.worker = worker;
    worker.onmessage = ({ data }) => {
      if (this.worker !== worker) return;
      if (data.what) view = new View(data.what, data.bytes);
      if (data.verdict) this.wantsSchema = data.verdict.missing;
      this.tell(data);
      view?.take(data);
      if (data.done) this.stop();
    };
    const ended = (verdict) => {
      (view ?? new View('frame', request.bytes)).take({ verdict });
      this.stop();
    };
    worker.onerror = (event) => {
      event.preventDefault();
      ended({ broken: event.message ?? 'the browser did not start a worker' });
    };
    this.timer = setTimeout(ended, 1000 * PATIENCE, { late: PATIENCE });
    worker.postMessage(request);
  }

  /** Says what a file was read as, or why it was not. */
  tell({ what, bytes, json, refused, schemaRefused }) {
    const name = printable(this.subject.name);
    const from = json ? ', made from JSON' : '';
    if (what) this.say(`${name}: read as a ${NAMES[what]} of ${counted(bytes.length, 'byte')}${from}.`);
    if (refused) this.say(`${name}: ${printable(refused)}`, true);
    if (!schemaRefused) return;
    const text = `${printable(this.schema.name)} is not used: ${printable(schemaRefused)}`;
    this.schema = undefined;
    this.showSchemaName();
    byId('schema-name').textContent = text;
  }

  stop() {
    clearTimeout(this.timer);
    this.worker?.terminate();
    this.worker = undefined;
    document.body.dataset.state = 'done';
  }
}

/** Scrolls the box around an element, and not the page, to it. */
function scrollTo(element) {
  const box = element.closest('.bytes, .wide');
  box.scrollTop += element.getBoundingClientRect().top - box.getBoundingClientRect().top - box.clientHeight / 2;
}

/** Shows the parts of a report as they come. */
class View {
  constructor(what, bytes) {
    this.what = what;
    this.bytes = bytes;
    this.measured = [];
    this.cards = [];
  }

  take(part) {
    if (part.layout) this.layout(part);
    if (part.verdict) this.verdict(part.verdict);
    if (part.tensor) this.tensor(part.i, part.tensor);
    if (part.total) this.total(part.total);
  }

  layout({ layout, checksum }) {
    Object.assign(this, layout, { checksum });
    show('header', ...headerView(this.what, this.fields, this.bytes));
    if (this.bytes.length) show('parts', ...partsView(this.bytes.length, this.fields));
    this.table();
    this.showBytes(undefined);
  }

  table() {
    show('tensors', ...tensorTable(this.what, this.tensors, this.entries, this.measured));
  }

  showBytes(error) {
    const fault = faultAt(error, this.fields);
    show('bytes', ...bytesView(this.bytes, this.fields, fault));
    show('fields', ...fieldsView(this.bytes, this.fields, fault));
    document.querySelectorAll('.bytes .bad, #fields .bad').forEach(scrollTo);
  }

  verdict(verdict) {
    show('verdict', ...verdictView(this.what, verdict, this.checksum));
    if (verdict.error) this.showBytes(verdict.error);
  }

  tensor(i, { histogram, ...measured }) {
    this.measured[i] = measured;
    if (histogram) this.cards.push(tensorCard(i, this.tensors[i], { histogram, ...measured }));
  }

  total(total) {
    this.table();
    const name = this.what === 'frame' ? 'the decoded update' : 'the mean';
    const heading = el('p', { class: 'note' }, `All float tensors of ${name} together.`);
    if (total.count) show('total', heading, histogramView(total, name));
    const note = cardsNote(this.tensors.length);
    show('cards', note && el('p', { class: 'note' }, note), el('div', { class: 'cards' }, ...this.cards));
  }
}
