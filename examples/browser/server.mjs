// Serves the page with a network: node server.mjs DIR [PORT], where DIR has dynamic.onnx and labels.txt.

import { createReadStream, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = resolve(fileURLToPath(import.meta.url), "..");
const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
  ".txt": "text/plain; charset=utf-8",
  ".json": "application/json",
};

function pathOf(address) {
  try {
    return normalize(decodeURIComponent(new URL(address, "http://here").pathname));
  } catch {
    return "/nothing";
  }
}

/** A server of the page, and of a folder under /model/. */
export function serve(folder, port = 0) {
  const server = createServer((request, response) => {
    const path = pathOf(request.url);
    const [root, rest] = path.startsWith("/model/") ? [resolve(folder), path.slice(7)] : [HERE, path];
    const file = join(root, rest === "/" ? "index.html" : rest);
    const there = file.startsWith(root) && statSync(file, { throwIfNoEntry: false })?.isFile();
    if (!there) return response.writeHead(404).end();
    response.writeHead(200, { "Content-Type": TYPES[extname(file)] ?? "application/octet-stream" });
    return createReadStream(file).pipe(response);
  });
  return new Promise((done, failed) => {
    server.once("error", failed);
    server.listen(port, "127.0.0.1", () => done({ server, url: `http://127.0.0.1:${server.address().port}` }));
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [folder, port = "8080"] = process.argv.slice(2);
  if (!folder) {
    console.error("give a folder with dynamic.onnx and labels.txt: node server.mjs DIR [PORT]");
    process.exit(2);
  }
  const { url } = await serve(folder, Number(port));
  console.log(`open ${url}`);
}
