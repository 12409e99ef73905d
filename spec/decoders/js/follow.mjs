// node follow.mjs SCHEMA MODEL FRAME... adds a server's frames to a model, and prints the id of the model after each of them.
//
// SCHEMA holds the bytes of the schema (5.1). MODEL holds the elements of all tensors, in the schema's order and dtypes,
// little-endian; it is overwritten, unless a frame is refused. A frame's base_model must be the id of the model, or 0: then
// the frame is an update to a model of zeros (6.12).

import { readFileSync, writeFileSync } from 'node:fs';
import { applyUpdate, decodeTensor, elementSize, modelId, parseFrame, parseSchema } from './fedmrn.mjs';

function splitModel(schema, bytes) {
  let at = 0;
  const tensors = schema.tensors.map(({ n, dtype }) => bytes.subarray(at, (at += n * elementSize(dtype))));
  if (at !== bytes.length) throw new RangeError(`MODEL has ${bytes.length} bytes, the schema's tensors have ${at}`);
  return tensors;
}

function follow(schema, model, frameBytes) {
  const frame = parseFrame(frameBytes, { schema });
  if (frame.baseModel !== 0n) parseFrame(frameBytes, { schema, baseModel: modelId(schema, model) });
  return schema.tensors.map(({ dtype }, i) => {
    const base = frame.baseModel === 0n ? new Uint8Array(model[i].length) : model[i];
    return applyUpdate(dtype, base, decodeTensor(frame, i));
  });
}

const [schemaPath, modelPath, ...framePaths] = process.argv.slice(2);
const schema = parseSchema(readFileSync(schemaPath));
let model = splitModel(schema, new Uint8Array(readFileSync(modelPath)));
for (const path of framePaths) {
  model = follow(schema, model, readFileSync(path));
  console.log(modelId(schema, model).toString(16).padStart(16, '0'));
}
writeFileSync(modelPath, Buffer.concat(model));
