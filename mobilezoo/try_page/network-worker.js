// Loads and runs the networks beside the page's own thread. A classic worker, not a module: LiteRT.js loads its
// WebAssembly by importScripts there.
'use strict';

const modules = Promise.all([import('./network.mjs'), import('./answers.mjs')]);
modules.catch(() => {}); // whoever awaits it hears of it
let networks = [];
let turn = Promise.resolve();

/** Loads each network after the other; of every one the page hears progress and what came of it. */
async function loadAll({ infos, accelerator, threads }) {
  const [{ load }, { reader }] = await modules;
  for (const old of networks) old?.close();
  networks = [];
  for (const [index, info] of infos.entries()) {
    const start = performance.now();
    try {
      const runner = await load(info, accelerator, (share) => self.postMessage({ index, share }), threads);
      networks[index] = { ...runner, read: reader(info) };
      self.postMessage({ index, where: runner.where, ms: performance.now() - start });
    } catch (error) {
      self.postMessage({ index, fault: error.message });
    }
  }
}

async function answer({ id, image, prepared, fault }) {
  if (fault) {
    self.postMessage({ id, fault });
    return;
  }
  const answers = [];
  const buffers = [image.data.buffer];
  for (const { index, tensor, bytes, ms } of prepared) {
    const start = performance.now();
    const raw = await networks[index].run(tensor);
    const ran = performance.now();
    const { best, boxes, mask } = networks[index].read(raw);
    const times = { prepare: ms, run: ran - start, read: performance.now() - ran };
    answers.push({ index, best, boxes, mask, bytes, times });
    buffers.push(bytes.buffer, ...(mask ? [mask.classes.buffer] : []));
  }
  self.postMessage({ id, image, answers }, buffers);
}

/** One after the other, as the runtimes take them. */
function queue(step, id) {
  turn = turn.then(step).catch((error) => self.postMessage({ id, fault: error.message }));
}

self.onmessage = ({ data }) => {
  if (data.port) data.port.onmessage = ({ data: frame }) => queue(() => answer(frame), frame.id);
  else queue(() => loadAll(data));
};
