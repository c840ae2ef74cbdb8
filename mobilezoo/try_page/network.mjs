// The two runtimes behind one function: tensor in, scores out. Nothing is loaded before it is used.
import { ARRAYS } from './prepare.mjs';

const root = new URL('.', location.href);
const NO_WEBGPU = 'This browser has no WebGPU';

/** Smallest module with a 128-bit vector (i8x16.splat): without them neither runtime is of use. */
const SIMD = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6, 0, 65, 0, 253, 15, 11,
]);
export const hasSimd = () => typeof WebAssembly === 'object' && WebAssembly.validate(SIMD);

/** Threads of WebAssembly: half of the cores, and one where the page is not isolated from others. */
export const threads = () =>
  (self.crossOriginIsolated ? Math.max(1, Math.min(4, (navigator.hardwareConcurrency || 2) >> 1)) : 1);

/** The name of a WebGPU adapter, or the reason why there is none. */
export async function webgpu() {
  const adapter = await navigator.gpu?.requestAdapter?.().catch(() => null);
  if (!adapter) return { name: '', reason: self.isSecureContext ? NO_WEBGPU : 'WebGPU needs https, or localhost' };
  const { vendor = '', architecture = '', description = '' } = adapter.info ?? {};
  return { name: description || [vendor, architecture].filter(Boolean).join(' ') || 'WebGPU', reason: '' };
}

async function bytesOf(name, onProgress) {
  const answer = await fetch(new URL(name, root));
  if (!answer.ok) throw new Error(`the file is not served any more (status ${answer.status})`);
  const total = Number(answer.headers.get('Content-Length')); // 0 or another where a server compresses
  const parts = [];
  let at = 0;
  for (const reader = answer.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) return new Uint8Array(await new Blob(parts).arrayBuffer());
    parts.push(value);
    at += value.length;
    onProgress(total ? Math.min(1, at / total) : 0);
  }
}

/** Runs a step, and keeps what the runtime writes to the console meanwhile: the reason stands there only. */
async function overheard(step) {
  const lines = [];
  const names = ['log', 'info', 'warn', 'error'];
  const kept = names.map((name) => console[name]);
  names.forEach((name, i) => {
    console[name] = (...words) => {
      lines.push(words.join(' '));
      kept[i].apply(console, words);
    };
  });
  try {
    const done = await step();
    const failed = lines.find((line) => FAILED.test(line)); // LiteRT.js throws nothing then, and answers anything
    if (failed) throw new Error(failed);
    return done;
  } catch (error) {
    throw new Error(reasonOf(error, lines));
  } finally {
    names.forEach((name, i) => { console[name] = kept[i]; });
  }
}

const FAILED = /ERROR: .*(unresolved|failed to (prepare|allocate|invoke))/i;
const OPERATORS = [
  /unresolved custom op: *([\w.:]*\w)/i, // LiteRT, an operator of others
  /Op builtin_code out of range: (\d+)/i, // LiteRT, newer than the runtime
  /find op for builtin opcode '?([\w]+)'?/i, // LiteRT, a version of an operator
  /implementation for ([\w.:]+\(\d+\))/i, // ONNX Runtime, left out of this build
  /No Op registered for ([\w.]+)/i, // ONNX Runtime, unknown to it
  /: ?([\w.]+:?[\w.]+)\(-?\d+\) is not a registered function/i, // ONNX Runtime, of others
];

const NOISE = /Failed to create default WebGPU device|npu_registry/; // no matter on the CPU

/** One line of why a file does not run; names the operator where one is missing. */
export function reasonOf(error, lines = []) {
  const text = [String(error?.message ?? error), ...lines].join('\n');
  for (const pattern of OPERATORS) {
    const found = pattern.exec(text);
    if (found) return `operator ${found[1]} is not in this browser's runtime`;
  }
  const telling = lines.filter((line) => /^\s*ERROR\b/i.test(line) && !NOISE.test(line));
  return [String(error?.message ?? error).split(NOISE)[0], ...telling.slice(0, 2)].join(' ').replace(/\s+/g, ' ')
    .replace(/[.:\s]+$/, '').slice(0, 400);
}

let lite; // one LiteRT.js for the page: a promise of {module, threads}

async function loadLite(count) {
  if (!self.document) { // a worker has no script element that would hold the place of its files
    const file = (name) => new URL(`litert/wasm/${name}`, root).href;
    self.Module = { locateFile: file, mainScriptUrlOrBlob: file('litert_wasm_threaded_internal.js') };
  }
  const module = await import(new URL('litert/index.js', root).href);
  await module.loadLiteRt(new URL('litert/wasm/', root).href, count > 1 ? { threads: true } : {});
  return { module, threads: count };
}

async function litert(count) {
  lite ??= loadLite(count);
  lite.catch(() => { lite = null; });
  return lite;
}

async function liteRunner({ module, threads: count }, network, model, accelerator) {
  const options = { accelerator, ...(accelerator === 'wasm' ? { cpuOptions: { numThreads: count } } : {}) };
  const compiled = await module.loadAndCompile(model, options);
  const whole = accelerator === 'wasm' || compiled.isFullyAccelerated;
  return {
    where: accelerator === 'wasm' ? wasmName('LiteRT.js', count) : `LiteRT.js, WebGPU${whole ? '' : ' in part'}`,
    async run(values) {
      const tensor = new module.Tensor(values, network.input.shape);
      let results = [];
      try {
        results = await compiled.run([tensor]);
        return Float32Array.from(await results[network.output_index].data());
      } finally {
        for (const result of results) result.delete();
        tensor.delete();
      }
    },
    close: () => compiled.delete(),
  };
}

async function onnx(count) {
  const ort = await import(new URL('ort/ort.wasm.bundle.min.mjs', root).href);
  ort.env.wasm.numThreads = count;
  ort.env.wasm.wasmPaths = new URL('ort/', root).href;
  return ort;
}

async function onnxRunner(ort, network, model) {
  const session = await ort.InferenceSession.create(model, { executionProviders: ['wasm'] });
  const [given, wanted] = [session.inputNames[0], session.outputNames[network.output_index]];
  return {
    where: wasmName('onnxruntime-web', ort.env.wasm.numThreads),
    async run(values) {
      const results = await session.run({ [given]: new ort.Tensor(network.input.dtype, values, network.input.shape) });
      const { type, data } = results[wanted];
      if (type === 'float16' && data instanceof Uint16Array) throw new Error('this browser reads no 16-bit floats');
      return Float32Array.from(data, Number);
    },
    close: () => session.release(),
  };
}

const wasmName = (runtime, count) => `${runtime}, WebAssembly, ${count} thread${count === 1 ? '' : 's'}`;

/**
 * Fetches a network and its runtime at once, and loads it. accelerator: `wasm` or `webgpu` (LiteRT.js only).
 * Returns {where: what computes, run(tensor) → scores of the file, close()}.
 */
export function load(network, accelerator, onProgress, count = threads()) {
  const [runtime, runner] = network.runtime === 'onnx' ? [onnx, onnxRunner] : [litert, liteRunner];
  return overheard(async () => {
    const [ready, model] = await Promise.all([runtime(count), bytesOf(network.url, onProgress)]);
    const loaded = await runner(ready, network, model, accelerator);
    const { dtype, shape } = network.input;
    const scores = await loaded.run(new ARRAYS[dtype](shape.reduce((a, b) => a * b, 1))); // some faults show only here
    const [outputs, labels] = [scores.length / shape[0], network.labels.length];
    if (network.task !== 'classify') {
      const wanted = network.output_shape.reduce((a, b) => a * b, 1);
      if (outputs !== wanted) throw new Error(`${outputs} numbers per image, and its record holds ${wanted}`);
      return loaded;
    }
    if (labels && labels !== outputs) throw new Error(`${outputs} outputs and ${labels} labels`);
    return loaded;
  });
}
