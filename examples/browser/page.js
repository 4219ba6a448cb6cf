// The page: choose a picture, see what it is and what that cost.

import { Classifier } from "./classifier.js";

const at = id => document.getElementById(id);
const percent = share => `${(100 * share).toFixed(1)} %`;
const folder = new URLSearchParams(location.search).get("model") ?? "model";

function add(parent, tag, text, kind) {
  const made = parent.appendChild(document.createElement(tag));
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function show(found, classes) {
  const said = document.createElement("div");
  const line = add(said, "p");
  add(line, "strong", found.name);
  line.append(` with ${percent(found.probability)}`);
  add(said, "p", `${percent(found.share)} of the whole network's compute, in ${found.passes} ${found.passes === 1 ? "pass" : "passes"}`);
  const best = found.probabilities.map((value, label) => [value, label]).sort((a, b) => b[0] - a[0]).slice(0, 5);
  for (const [value, label] of best) {
    const bar = add(said, "div", undefined, "bar");
    add(bar, "span", classes[label]);
    add(add(bar, "div"), "i").style.width = `${100 * value}%`;
    add(bar, "span", percent(value));
  }
  at("said").replaceChildren(...said.childNodes);
}

async function take(file) {
  if (!file) return;
  URL.revokeObjectURL(at("picture").src);
  at("picture").src = URL.createObjectURL(file);
  at("result").hidden = false;
  try {
    const classifier = await loading;
    show(await classifier.classify(file), classifier.classes);
  } catch (error) {
    at("said").replaceChildren(add(document.createElement("div"), "p", error.message, "error"));
  }
}

const loading = Classifier.load(folder);
window.classifier = loading; // for check.mjs, and for your console
loading.then(
  classifier => {
    const size = classifier.resizes ? "any size" : `${classifier.width} x ${classifier.height}`;
    at("state").textContent = `${classifier.classes.length} classes, pictures of ${size}; nothing leaves this page`;
    document.body.dataset.state = "ready";
  },
  error => {
    at("state").textContent = error.message;
    at("state").className = "error";
    document.body.dataset.state = "failed";
  },
);

at("file").onchange = event => take(event.target.files[0]);
at("drop").ondragover = event => event.preventDefault();
at("drop").ondrop = event => {
  event.preventDefault();
  take(event.dataTransfer.files[0]);
};
