// What an ONNX file says of itself. onnxruntime-web does not give a model's metadata, and protobuf is simple enough.

const METADATA = 14; // the field of ModelProto; its entries have a key (1) and a value (2)
const text = new TextDecoder();

function varint(bytes, at) {
  let value = 0;
  let scale = 1;
  for (;;) {
    const byte = bytes[at.now++];
    if (byte === undefined) throw new Error("the ONNX file is not whole");
    value += (byte & 127) * scale;
    if (byte < 128) return value;
    scale *= 128;
  }
}

function* fields(bytes) {
  const at = { now: 0 };
  while (at.now < bytes.length) {
    const key = varint(bytes, at);
    const kind = key % 8;
    if (kind === 0) {
      varint(bytes, at);
      continue;
    }
    const size = kind === 2 ? varint(bytes, at) : { 1: 8, 5: 4 }[kind];
    if (size === undefined || at.now + size > bytes.length) throw new Error("this is no ONNX file");
    yield [Math.floor(key / 8), bytes.subarray(at.now, at.now + size)];
    at.now += size;
  }
}

/** The notes that rlprune keeps in a file: classes, prices, preprocessing. */
export function notesOf(bytes) {
  for (const [number, entry] of fields(bytes)) {
    if (number !== METADATA) continue;
    const parts = Object.fromEntries([...fields(entry)].map(([part, value]) => [part, text.decode(value)]));
    if (parts[1] === "rlprune") return JSON.parse(parts[2]);
  }
  throw new Error("the ONNX file was not written by rlprune");
}
