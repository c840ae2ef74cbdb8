// One restart of a measurement: load, first run, warm-up until stable, slices of samples with a sentinel between them.
// The rules are those of protocol.py; times are milliseconds.

const TIMER_SHARE = 0.01; // a sample spans at least 1 / TIMER_SHARE steps of the clock
const YIELD_MS = 300; // how long the page may be deaf

const ARRAYS = {
  float32: Float32Array, float64: Float64Array, int8: Int8Array, uint8: Uint8Array, int16: Int16Array,
  int32: Int32Array, int64: BigInt64Array, bool: Uint8Array,
};

const median = (values) => {
  const sorted = Float64Array.from(values).sort();
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
};

async function bytesOf(name, root) {
  const answer = await fetch(new URL(name, root));
  if (!answer.ok) throw new Error(`${name}: status ${answer.status}`);
  return new Uint8Array(await answer.arrayBuffer());
}

async function onnx(job, root, model, input) {
  const ort = await import(new URL('ort/ort.wasm.bundle.min.mjs', root).href);
  ort.env.wasm.numThreads = job.threads;
  ort.env.wasm.wasmPaths = new URL('ort/', root).href;
  return async () => {
    const session = await ort.InferenceSession.create(model, { executionProviders: ['wasm'] });
    const feeds = { [session.inputNames[0]]: new ort.Tensor(job.dtype, input, job.shape) };
    const name = session.outputNames[0];
    return {
      run: () => session.run(feeds),
      output: async () => (await session.run(feeds))[name].data,
      threads: () => ort.env.wasm.numThreads,
    };
  };
}

async function litert(job, root, model, input) {
  const lite = await import(new URL('litert/index.js', root).href);
  const runtime = await lite.loadLiteRt(new URL('litert/wasm/', root).href, job.threads > 1 ? { threads: true } : {});
  return async () => {
    const options = { accelerator: 'wasm', cpuOptions: { numThreads: job.threads } };
    const compiled = await lite.loadAndCompile(model, options);
    const tensor = new lite.Tensor(input, job.shape);
    return {
      run: async () => { for (const result of await compiled.run([tensor])) result.delete(); },
      output: async () => {
        const results = await compiled.run([tensor]);
        const values = Float32Array.from(await results[0].data());
        for (const result of results) result.delete();
        return values;
      },
      threads: () => (job.threads > 1 ? runtime.liteRtWasm.getThreadCount() : 1),
    };
  };
}

// A small fixed workload whose time says whether the device changed: a 64×64 product in plain JavaScript, in batches
// long enough for a coarse clock.
function sentinel(step) {
  const n = 64;
  const a = Float32Array.from({ length: n * n }, (_, i) => (i % 17) / 17);
  const c = new Float32Array(n * n);
  const once = () => {
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) {
        let sum = 0;
        for (let k = 0; k < n; k++) sum += a[i * n + k] * a[k * n + j];
        c[i * n + j] = sum;
      }
    }
  };
  const batch = (count) => {
    const start = performance.now();
    for (let i = 0; i < count; i++) once();
    return performance.now() - start;
  };
  batch(100); // until the browser has compiled it
  let count = 16;
  while (batch(count) < Math.max(10, step / TIMER_SHARE / 5)) count *= 2;
  return () => median(Array.from({ length: 15 }, () => batch(count) / count));
}

async function timed(run, count) {
  const start = performance.now();
  for (let i = 0; i < count; i++) await run();
  return performance.now() - start;
}

async function warmUp(run, rules) {
  const times = [];
  const start = performance.now();
  let next = rules.runs;
  for (;;) {
    times.push(await timed(run, 1));
    const elapsed = performance.now() - start;
    if (times.length < Math.max(next, 2) || elapsed < rules.min_ms) continue;
    const n = times.length;
    const window = Math.max(1, Math.min(Math.max(rules.runs >> 1, n >> 2), n >> 1));
    // A clock coarser than a run gives zeros: the mean of a window is what it can tell.
    const mean = (part) => part.reduce((sum, t) => sum + t, 0) / part.length;
    const last = mean(times.slice(-window));
    const before = mean(times.slice(-2 * window, -window));
    const settled = Math.abs(last - before) <= rules.tolerance * Math.max(before, 1e-9);
    if (settled || elapsed >= rules.max_ms) return { runs: n, settled, run_ms: elapsed / n };
    next = n + Math.max(1, n >> 2);
  }
}

const breathe = () => new Promise((done) => setTimeout(done));

async function takeSlice(run, batch, wanted, samples, tell) {
  let total = 0;
  let count = 0;
  let awake = performance.now();
  while (count < wanted.most && (count < wanted.samples || total < wanted.min_ms)) {
    const ms = await timed(run, batch);
    total += Math.max(ms, 1e-6);
    samples.push(ms / batch);
    count += 1;
    if (performance.now() - awake > YIELD_MS) {
      await tell(Math.min(1, Math.min(total / Math.max(wanted.min_ms, 1e-9), count / wanted.samples)));
      await breathe();
      awake = performance.now();
    }
  }
  return count;
}

export async function measure(job, root, step, tell) {
  if (job.threads > 1 && !self.crossOriginIsolated) {
    throw new Error('threads need a cross-origin isolated page: use https, or http on localhost');
  }
  await tell('loading', 0);
  const [model, raw] = await Promise.all([bytesOf('model', root), bytesOf('input', root)]);
  const load = await (job.runtime === 'onnx' ? onnx : litert)(job, root, model, new ARRAYS[job.dtype](raw.buffer));
  const check = sentinel(step);
  const before = check();
  let start = performance.now();
  const network = await load();
  const load_ms = performance.now() - start;
  const first_run_ms = await timed(network.run, 1);
  await tell('warming up', 0);
  const warm = await warmUp(network.run, job.warmup);
  const batch = Math.max(1, Math.ceil(Math.max(step / TIMER_SHARE, job.min_sample_ms) / Math.max(warm.run_ms, 1e-6)));
  const samples = [];
  const slices = [];
  start = performance.now();
  for (const [index, wanted] of job.slices.entries()) {
    const start_s = (performance.now() - start) / 1e3;
    const share = (part) => (index + part) / job.slices.length;
    const count = await takeSlice(network.run, batch, wanted, samples, (part) =>
      tell(`timing, ${Math.round(100 * share(part))}%`, share(part)));
    slices.push({ start_s, samples: count, sentinel_ms: check() });
  }
  const output = Array.from((await network.output()).slice(0, 64), Number);
  return {
    load_ms,
    first_run_ms,
    warmup_runs: warm.runs,
    warmup_settled: warm.settled,
    runs_per_sample: batch,
    sentinel_before_ms: before,
    slices,
    samples_ms: samples,
    threads: network.threads(),
    output,
  };
}
