// The page of the browser device: says what this browser is, asks for work, times it, sends raw samples back.
// Every restart begins with a reload, so that no runtime, compiled code or memory is left from the one before.
import { measure } from './measure.mjs';

const root = new URL('.', location.href);
const state = document.getElementById('state');
const bar = document.getElementById('bar');
const client = sessionStorage.getItem('client') ?? newClient();

// Smallest modules that use a 128-bit vector (i8x16.splat) and a relaxed instruction (i8x16.relaxed_swizzle).
const HEAD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10];
const SIMD = [...HEAD, 8, 1, 6, 0, 65, 0, 253, 15, 11];
const RELAXED = [...HEAD, 15, 1, 13, 0, 65, 0, 253, 15, 65, 0, 253, 15, 253, 128, 2, 11];
const runs = (bytes) => WebAssembly.validate(new Uint8Array(bytes));

function newClient() {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  const id = Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join('');
  sessionStorage.setItem('client', id);
  return id;
}

async function post(name, data) {
  const body = JSON.stringify({ client, ...data });
  return fetch(new URL(name, root), { method: 'POST', headers: { 'Content-Type': 'application/json' }, body });
}

function timerStep() {
  let step = Infinity;
  for (let i = 0; i < 20; i++) {
    const start = performance.now();
    let now = start;
    while (now === start) now = performance.now();
    step = Math.min(step, now - start);
  }
  return step;
}

function browserName() {
  const brands = navigator.userAgentData?.brands?.filter((b) => !/not.?a.?brand/i.test(b.brand)) ?? [];
  const chosen = brands.find((b) => b.brand !== 'Chromium') ?? brands[0];
  if (chosen) return `${chosen.brand} ${chosen.version}`;
  const found = /(Firefox|CriOS|FxiOS|EdgiOS|Edg|Chrome|Version)\/(\d+)/.exec(navigator.userAgent);
  return found ? `${found[1] === 'Version' ? 'Safari' : found[1]} ${found[2]}` : 'unknown browser';
}

function systemName() {
  const inside = /\(([^)]*)\)/.exec(navigator.userAgent);
  return (navigator.userAgentData?.platform || (inside ? inside[1] : '')).slice(0, 200);
}

async function modelName() {
  try {
    return (await navigator.userAgentData.getHighEntropyValues(['model'])).model.slice(0, 200);
  } catch {
    return ''; // only some browsers tell, and only to secure pages
  }
}

async function facts() {
  return {
    user_agent: navigator.userAgent.slice(0, 500),
    browser: browserName(),
    system: systemName(),
    model: await modelName(),
    cores: navigator.hardwareConcurrency || 0,
    isolated: self.crossOriginIsolated === true,
    simd: runs(SIMD),
    relaxed_simd: runs(RELAXED),
    webgpu: 'gpu' in navigator,
    timer_step_ms: timerStep(),
  };
}

function show(data) {
  const list = document.getElementById('facts');
  for (const [key, value] of Object.entries(data)) {
    const term = document.createElement('dt');
    const what = document.createElement('dd');
    term.textContent = key.replaceAll('_', ' ');
    what.textContent = String(value);
    list.append(term, what);
  }
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

async function work(job, step) {
  let hidden = document.hidden;
  const watch = () => { hidden = hidden || document.hidden; };
  document.addEventListener('visibilitychange', watch);
  const tell = async (text, share) => {
    state.textContent = `${job.title}: ${text}`;
    bar.value = share;
    await post('progress', { job: job.id, text });
  };
  try {
    const found = await measure(job, root, step, tell);
    const answer = await post('result', { job: job.id, ...found, hidden });
    if (!answer.ok) throw new Error(`the computer refused the result (status ${answer.status})`);
  } catch (error) {
    await post('result', { job: job.id, error: String(error?.message ?? error).slice(0, 1000) });
  }
  location.reload();
}

async function main() {
  const data = await facts();
  show(data);
  const answer = await post('hello', data);
  if (!answer.ok) {
    state.textContent = answer.status === 409 ? 'Another browser is measuring already.' : 'This link is no longer valid.';
    return;
  }
  for (;;) {
    const job = await (await fetch(new URL(`job?client=${client}`, root))).json();
    if (job.ended) return done();
    if (job.id) return work(job, data.timer_step_ms);
    state.textContent = 'Connected: waiting for the next network.';
    await pause(500);
  }
}

function done() {
  state.textContent = 'Done: the computer has ended the measurement. This page can be closed.';
  bar.value = 1;
}

main().catch(done);
