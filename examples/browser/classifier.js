// A network in a browser: dynamic.onnx and labels.txt of a folder, run by onnxruntime-web.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";
import { notesOf } from "./notes.js";
import { prepare } from "./resize.js";

ort.env.wasm.wasmPaths = new URL("./node_modules/onnxruntime-web/dist/", import.meta.url).href;
ort.env.wasm.numThreads = 1; // more need a page that is isolated from other sites

async function fetched(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address} cannot be loaded (${answer.status})`);
  return answer;
}

/** The pixels of a picture's file, on white where it is transparent. */
async function pixelsOf(blob, channels) {
  const bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none" });
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  const plane = value => Uint8Array.from({ length: width * height }, (_, index) => value(4 * index));
  const grey = at => (19595 * data[at] + 38470 * data[at + 1] + 7471 * data[at + 2] + 32768) >> 16;
  const planes = channels === 1 ? [plane(grey)] : [0, 1, 2].map(channel => plane(at => data[at + channel]));
  return { width, height, planes };
}

function softmax(logits) {
  const highest = Math.max(...logits);
  const powers = Array.from(logits, logit => Math.exp(logit - highest));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map(power => power / sum);
}

export class Classifier {
  /** Load a folder that `rlprune optimize` or `rlprune export --onnx` wrote. */
  static async load(folder, file = "dynamic.onnx") {
    const bytes = new Uint8Array(await (await fetched(`${folder}/${file}`)).arrayBuffer());
    const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
    const labels = await fetch(`${folder}/labels.txt`);
    const names = labels.ok ? (await labels.text()).replace(/\n$/, "").split("\n") : null;
    return new Classifier(session, notesOf(bytes), names);
  }

  constructor(session, notes, names) {
    this.session = session;
    this.notes = notes;
    this.classes = names ?? notes.classes;
    if (this.classes.length !== notes.classes.length)
      throw new Error(`labels.txt has ${this.classes.length} names; the network has ${notes.classes.length} classes`);
    const images = session.inputMetadata[session.inputNames.indexOf("images")];
    [, this.channels, this.height, this.width] = images.shape;
    this.resizes = typeof this.height !== "number"; // a file that was exported with --resize scales pictures itself
  }

  /** The values that the network gets for a picture. */
  async input(blob) {
    const picture = await pixelsOf(blob, this.channels);
    const made = this.resizes ? picture : prepare(picture, this.notes.preprocessing, this.width, this.height);
    const pixels = new Uint8Array(made.planes.length * made.width * made.height);
    made.planes.forEach((plane, channel) => pixels.set(plane, channel * plane.length));
    return new ort.Tensor("uint8", pixels, [1, made.planes.length, made.height, made.width]);
  }

  /** What the network says of a picture's file, and its cost as a share of the whole network's compute. */
  async classify(blob) {
    const outputs = await this.session.run({ images: await this.input(blob) });
    const probabilities = softmax(outputs.logits.data);
    const label = outputs.label ? Number(outputs.label.data[0]) : probabilities.indexOf(Math.max(...probabilities));
    return {
      label,
      name: this.classes[label],
      probability: outputs.probability ? outputs.probability.data[0] : probabilities[label],
      probabilities,
      passes: Array.from(outputs.profiles.data).filter(profile => profile >= 0n).length,
      macs: Number(outputs.macs.data[0]),
      share: Number(outputs.macs.data[0]) / this.notes.prices.dense[1],
    };
  }
}
