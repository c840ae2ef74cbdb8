// The page of `mobilezoo try`: loads the networks, takes pictures from camera, files and samples, shows the answers.
import { Camera, breathe } from './camera.mjs';
import { decode } from './decode.mjs';
import { paint } from './dense.mjs';
import { Engine } from './engine.mjs';
import { hasSimd, threads, webgpu } from './network.mjs';
import { Panel } from './panel.mjs';
import { Gallery, draw } from './pictures.mjs';
import { region } from './prepare.mjs';
import { screenshot } from './screenshot.mjs';

const BEAT_MS = 15_000;
const SHOW_MS = 100; // of a live picture, answers are drawn this often
const QUICK_MS = 100; // of a network that answers sooner, one frame more is under way, so that it never waits
const SPEAK_MS = 3000;

const $ = (id) => document.getElementById(id);
const state = { networks: [], samples: [], live: false, loop: null, shown: null, spoken: '', spokenAt: -SPEAK_MS, same: 0, frames: 0 };
const camera = new Camera($('video'));
const gallery = new Gallery($('shots'), (picture) => void choose(picture));

function complain(text) {
  $('alert').textContent = text;
  $('alert').hidden = !text;
}

function setState(name) {
  document.body.dataset.state = name;
}

// ---- networks

async function loadAll(accelerator) {
  const { networks, engine } = state;
  const name = (index) => { $('hint').textContent = `Loading ${networks[index].name}`; };
  name(0);
  const found = await engine.load(state.infos, accelerator, threads(), (index, share) => {
    name(index);
    $('loading').value = share;
  });
  found.forEach(({ where, ms, fault }, i) => {
    networks[i].where = fault ? '' : where;
    networks[i].panel.where = fault ? `does not run here: ${fault}` : `${where} · loaded in ${(ms / 1000).toFixed(1)} s`;
    networks[i].panel.off = Boolean(fault);
    if (fault) complain(`${networks[i].name}: ${fault}.`);
  });
  return running().length;
}

const running = () => state.networks.filter((network) => network.where);

/** What the networks that run answer to an image, whose bytes are taken away: {image, answers}. */
async function answer(image) {
  const found = await state.engine.answer(image);
  return { image: found.image, answers: found.answers.map((one) => ({ ...one, network: state.networks[one.index] })) };
}

function show(answers) {
  for (const one of answers) one.network.panel.show(one);
  const now = performance.now();
  const text = answers.map((one) => (answers.length > 1 ? `${one.network.name}: ` : '') + one.best[0].label).join('; ');
  if (text !== state.spoken && now - state.spokenAt >= SPEAK_MS) {
    state.spoken = text;
    state.spokenAt = now;
    $('spoken').textContent = text;
  }
}

function outline(image, element) {
  const box = $('crop');
  const network = state.networks[0];
  const part = region(image, network.size, network.preprocessing);
  const outer = $('frame').getBoundingClientRect();
  const inner = element.getBoundingClientRect();
  const scale = Math.min(inner.width / image.width, inner.height / image.height);
  const [width, height] = [image.width * scale, image.height * scale];
  const left = inner.left - outer.left + (inner.width - width) / 2;
  const top = inner.top - outer.top + (inner.height - height) / 2;
  box.hidden = part.width > 0.995 && part.height > 0.995;
  Object.assign(box.style, {
    left: `${left + part.left * width}px`, top: `${top + part.top * height}px`,
    width: `${part.width * width}px`, height: `${part.height * height}px`,
  });
}

/** Shows a frame of the camera as the video, or an image with what was found in it. */
function showPicture(image, answers, video) {
  $('hint').hidden = true;
  $('loading').hidden = true;
  $('video').hidden = !video;
  $('still').hidden = video;
  if (!video) {
    draw($('still'), image, 1600);
    const pen = $('still').getContext('2d');
    for (const one of answers) if (one.network.task !== 'classify') paint(pen, image, one);
  }
  state.shown = { image, video };
  requestAnimationFrame(() => outline(image, video ? $('video') : $('still')));
  $('shot').disabled = false;
}

// ---- camera

/** The answers to the camera's next frame; null where it is paused before. */
async function coming() {
  const frame = await camera.next();
  if (!frame) return null;
  const { image, answers } = await answer(frame);
  for (const { times } of answers) times.prepare += frame.ms / answers.length;
  return { image, answers };
}

/** Answers frames, with the next ones under way: one that is prepared meanwhile, and one more of quick networks. */
async function live() {
  let drawn = 0;
  let size = '';
  let depth = 2;
  const way = [];
  camera.hold();
  while (state.live || way.length) {
    while (state.live && way.length < depth) {
      way.push(coming());
      way.at(-1).catch(() => {}); // whoever waits for it hears of it
    }
    const found = await way.shift();
    if (!found) continue;
    const { image, answers } = found;
    for (const one of answers) one.network.panel.note(one.times, true);
    depth = answers.reduce((sum, { times }) => sum + times.run, 0) < QUICK_MS ? 3 : 2;
    state.frames += 1;
    state.same += answers.every((one) => one.best[0].index === answers[0].best[0].index);
    state.last = found;
    if (state.drawn) showPicture(image, answers, false); // the very frame that was answered, boxes or mask on it
    else if (size !== (size = `${image.width}×${image.height}`)) showPicture(image, answers, true);
    if (performance.now() - drawn > SHOW_MS) {
      drawn = performance.now();
      show(answers);
      agreement();
      document.body.dataset.frames = state.frames;
    }
  }
}

function agreement() {
  if (running().length < 2) return;
  const box = $('agreement');
  box.hidden = false;
  const strong = document.createElement('strong');
  strong.textContent = state.frames ? `${((100 * state.same) / state.frames).toFixed(1)} %` : '–';
  box.replaceChildren(strong, ` same best class, ${state.same} of ${state.frames} frames of the camera`);
}

async function startCamera(how = () => camera.start()) {
  complain('');
  await pause();
  try {
    await how();
  } catch (error) {
    complain(error.message);
    return;
  }
  $('video').classList.toggle('mirror', camera.facing === 'user');
  $('turn').hidden = !(await camera.several());
  for (const network of state.networks) network.panel.reset();
  state.live = true;
  $('camera').textContent = 'Pause';
  setState('live');
  state.loop = live().catch((error) => {
    state.live = false;
    complain(`The network stopped: ${error.message}`);
  });
}

/** Stops after the frame under way, and leaves it on the page. */
async function pause() {
  if (!state.live) return;
  state.live = false;
  camera.release();
  await state.loop;
  if (state.last) {
    showPicture(state.last.image, state.last.answers, false);
    show(state.last.answers);
    agreement();
    document.body.dataset.frames = state.frames;
  }
  $('camera').textContent = 'Go on';
  setState('ready');
}

async function stopCamera() {
  await pause();
  camera.stop();
  $('camera').textContent = 'Start camera';
  $('turn').hidden = true;
}

// ---- pictures

async function choose({ image, answers }) {
  await stopCamera();
  showPicture(image, answers, false);
  show(answers);
  state.last = { image, answers };
}

let turn = Promise.resolve();

/** Answers pictures one after the other: [{name, blob(), truth}]. */
function answerAll(pictures) {
  turn = turn.then(() => answerNow(pictures)).catch((error) => complain(`The network stopped: ${error.message}`));
  return turn;
}

async function answerNow(pictures) {
  await stopCamera();
  complain('');
  gallery.clear();
  $('gallery').hidden = false;
  setState('answering');
  const names = running().map((one) => one.name);
  for (const [i, { name, blob, truth }] of pictures.entries()) {
    $('score').textContent = `${i + 1} of ${pictures.length}`;
    try {
      const { image, answers } = await answer(await decode(await blob()));
      for (const one of answers) one.network.panel.note(one.times, false);
      gallery.add({ name, truth, image, answers });
      if (i === 0) await choose({ image, answers });
    } catch (fault) {
      gallery.add({ name, fault: fault.message });
    }
    await breathe();
  }
  $('score').textContent = gallery.summary(names);
  setState('ready');
}

const ofFiles = (files) => [...files].map((file) => ({ name: file.name, blob: async () => file }));
const ofSamples = () => state.samples.map(({ url, truth }) => ({
  name: url, truth, blob: async () => (await fetch(url)).blob(),
}));

function listen() {
  $('camera').addEventListener('click', () => {
    if (state.live) pause();
    else if (camera.stream) startCamera(async () => {});
    else startCamera();
  });
  $('turn').addEventListener('click', () => startCamera(() => camera.turn()));
  $('files').addEventListener('change', () => {
    if ($('files').files.length) answerAll(ofFiles($('files').files));
    $('files').value = '';
  });
  $('samples').addEventListener('click', () => answerAll(ofSamples()));
  $('shot').addEventListener('click', () => screenshot(state.last.image, state.last.answers));
  $('accelerator').addEventListener('change', () => void changeAccelerator($('accelerator').value));
  addEventListener('resize', () => {
    if (state.shown) outline(state.shown.image, state.shown.video ? $('video') : $('still'));
  });
  document.addEventListener('dragover', (event) => {
    event.preventDefault();
    $('frame').classList.add('over');
  });
  document.addEventListener('dragleave', () => $('frame').classList.remove('over'));
  document.addEventListener('drop', (event) => {
    event.preventDefault();
    $('frame').classList.remove('over');
    if (event.dataTransfer.files.length) answerAll(ofFiles(event.dataTransfer.files));
  });
  document.addEventListener('paste', (event) => {
    if (event.clipboardData.files.length) answerAll(ofFiles(event.clipboardData.files));
  });
}

async function changeAccelerator(name) {
  const wasLive = state.live;
  await pause();
  enable(false);
  complain('');
  setState('loading');
  const loaded = await loadAll(name);
  Object.assign(state, { same: 0, frames: 0 });
  enable(loaded > 0);
  $('accelerator').disabled = false;
  setState('ready');
  if (wasLive && loaded) startCamera(async () => {});
  else if (state.shown && loaded) {
    const { data, width, height } = state.shown.image;
    const found = await answer({ data: data.slice(), width, height }); // the gallery keeps the image
    for (const one of found.answers) one.network.panel.note(one.times, false);
    choose(found);
  }
}

function enable(yes) {
  for (const id of ['camera', 'files', 'samples', 'accelerator']) $(id).disabled = !yes;
}

// ---- start

async function offerGpu() {
  const { name, reason } = await webgpu();
  const lite = state.networks.some((one) => one.runtime === 'litert');
  const facts = [name ? `WebGPU: ${name}` : reason];
  if (name && lite) $('accelerator').add(new Option(`GPU (WebGPU, ${name})`, 'webgpu'));
  if (name && !lite) facts.push('.onnx files run on the CPU here');
  if (!self.crossOriginIsolated) facts.push('one thread: the page is not isolated (https or localhost gives more)');
  $('facts').textContent = [...facts, ...state.notes].join(' · ');
}

function beat() {
  const timer = setInterval(async () => {
    const answered = await fetch('beat').catch(() => null);
    if (answered?.ok) return;
    clearInterval(timer);
    $('about').textContent = 'The computer has ended its part: this page goes on until it is closed.';
  }, BEAT_MS);
}

function take(info) {
  state.infos = info.networks;
  state.networks = info.networks.map((network) => ({ ...network, where: '' }));
  state.drawn = state.networks.some((one) => one.task !== 'classify');
  state.samples = info.samples;
  state.notes = info.notes;
  $('samples').hidden = !info.samples.length;
  for (const network of state.networks) {
    network.panel = new Panel(network);
    $('panels').append(network.panel.node);
  }
  const eyes = ({ size, preprocessing }) => JSON.stringify([size, preprocessing]);
  const [first, second] = state.networks;
  if (second && eyes(first) === eyes(second)) second.panel.hideSeen();
  document.querySelector('main').classList.toggle('drawn', state.drawn);
  document.querySelector('main').classList.toggle('pair', state.networks.length > 1);
  document.title = `${state.networks.map((one) => one.name).join(', ')} · mobilezoo try`;
}

async function main() {
  if (!hasSimd()) {
    throw new Error('This browser has no WebAssembly SIMD, which both runtimes need: '
      + 'use Chrome 91, Firefox 114 or Safari 16.4, or a newer one.');
  }
  state.engine = new Engine();
  take(await (await fetch('try.json')).json());
  listen();
  beat();
  const [loaded] = await Promise.all([loadAll('wasm'), offerGpu()]);
  $('loading').hidden = true;
  if (!loaded) {
    $('hint').textContent = 'Nothing can be run here.';
    setState('failed');
    return;
  }
  enable(true);
  $('hint').textContent = 'Start the camera, or choose or drop photographs.';
  setState('ready');
  if (state.samples.length) answerAll(ofSamples());
}

main().catch((error) => {
  complain(error.message);
  $('hint').textContent = 'Nothing can be run here.';
  $('loading').hidden = true;
  setState('failed');
});
