// Collects fields that follow one another.

const STOP = Symbol('the bytes end, or have a value that does not tell what follows');

/** The most fields that are listed, so that hostile bytes cost little. */
export const MOST_FIELDS = 100000;

const FURTHER = { name: 'further fields, not listed', of: '', section: '6.1', form: 'hex', part: 'further' };

export class Pen {
  constructor(bytes, at, end, fields = []) {
    this.bytes = bytes;
    this.at = at;
    this.end = end;
    this.fields = fields;
  }

  /** Whether further fields are not listed. */
  get full() {
    return this.fields.length > MOST_FIELDS;
  }

  /** Ends the walk. */
  stop() {
    throw STOP;
  }

  /** Adds a field, or as much of it as there is, and returns its bytes; ends the walk if some are missing. */
  put(size, name, section, part, form = 'number', of = '', tensor = undefined) {
    const begin = this.at;
    this.at = Math.min(begin + size, this.end);
    if (this.full) this.fields.at(-1).end = this.at;
    else if (this.fields.length === MOST_FIELDS) this.fields.push({ ...FURTHER, begin, end: this.at });
    else if (this.at > begin) this.fields.push({ begin, end: this.at, name, of, section, form, part, tensor });
    if (this.at < begin + size) this.stop();
    return this.bytes.subarray(begin, this.at);
  }

  /** Says to what the last fields belong. */
  rename(count, of) {
    if (!this.full) for (const field of this.fields.slice(-count)) field.of = of;
  }

  /** Adds a field, and returns its value: exact below 2^53. */
  number(...field) {
    return this.put(...field).reduceRight((sum, byte) => sum * 256 + byte, 0);
  }

  float(bytes) {
    return new DataView(bytes.buffer, bytes.byteOffset, 4).getFloat32(0, true);
  }

  /** Adds the bytes up to `end` as one field, however many fields there are. */
  add(end, name, section, part = 'rest') {
    this.fields.push({ begin: this.at, end, name, of: '', section, form: 'hex', part });
    this.at = end;
  }

  /** Adds the fields of another pen, which began where this one is. */
  take(other) {
    for (const field of other.fields) this.fields.push(field);
    this.at = other.at;
  }
}

/** Runs a function that puts fields, until it is done or a pen stops; returns whether it is done. */
export function walk(steps) {
  try {
    steps();
    return true;
  } catch (error) {
    if (error !== STOP) throw error;
    return false;
  }
}
