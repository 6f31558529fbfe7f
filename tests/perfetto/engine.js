// Perfetto's trace processor as the Perfetto UI runs it: WebAssembly in a worker.
//
// In: the folder of the UI's files as argument, requests on standard input. Out: replies on standard output.
// Both are the protocol between the UI and its engine (TraceProcessorRpcStream of trace_processor.proto).
"use strict";

const { readFileSync, writeSync } = require("node:fs");
const { join } = require("node:path");
const { runInThisContext } = require("node:vm");

const ui = process.argv[2];

// A worker's globals, as far as the engine looks for them. It refuses to run where it finds Node's.
Object.assign(globalThis, {
  self: globalThis,
  location: { href: `file://${ui}/` },
  WorkerGlobalScope: class {},
  XMLHttpRequest: class {
    open(_method, url) {
      this.response = readFileSync(join(ui, url.split("/").pop()));
    }
    send() {}
  },
  process: undefined,
});
// Standard output is for replies.
console.log = console.error;
console.warn = console.error;

runInThisContext(readFileSync(join(ui, "engine_bundle.js"), "utf8"));

const port = {
  postMessage(reply) {
    for (let written = 0; written < reply.length; ) {
      written += writeSync(1, reply, written);
    }
  },
};

// The engine is ready once the promises of its start have settled.
setImmediate(() => {
  self.onmessage({ data: port });
  port.onmessage({ data: new Uint8Array(readFileSync(0)) });
});
