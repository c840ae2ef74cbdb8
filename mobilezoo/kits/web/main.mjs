// Images are read, prepared as model.json describes it, run, and shown with their best classes, their boxes or their mask.
import { reader } from './answers.mjs';
import { decode } from './decode.mjs';
import { paint } from './dense.mjs';
import { hasSimd, load } from './network.mjs';
import { preparer } from './prepare.mjs';

const files = document.querySelector('#files');
const answers = document.querySelector('#answers');

function say(state, text) {
  document.querySelector('#status').textContent = text;
  document.body.dataset.state = state;
}

/** A function from an image file to {image, network, best: [{index, label, probability}], boxes or mask}. */
async function classifier() {
  if (!hasSimd()) throw new Error('this browser has no WebAssembly SIMD: use Chrome 91, Firefox 89, Safari 16.4 or later');
  const answer = await fetch('model.json');
  if (!answer.ok) throw new Error(`model.json is not served (status ${answer.status})`);
  const model = await answer.json();
  const network = { task: 'classify', ...model, url: model.file };
  const loaded = await load(network, 'wasm', (share) => say('loading', `Loading ${Math.round(100 * share)} %`));
  const [prepare, read] = [preparer(network), reader(network)];
  const notes = network.labels.length ? '' : ', no names of classes: shown by their number';
  say('ready', `${loaded.where}${notes}`);
  return async (file) => {
    const image = await decode(file);
    return { image, network, ...read(await loaded.run(prepare(image).tensor)) };
  };
}

/** The image with the boxes or the mask that were found in it. */
function drawn(found) {
  const { width, height } = found.image;
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  const pen = canvas.getContext('2d');
  pen.putImageData(found.image, 0, 0);
  paint(pen, found.image, found);
  return canvas;
}

function show(file, found, fault = '') {
  const item = document.createElement('li');
  const dense = found && found.network.task !== 'classify';
  const picture = dense ? drawn(found) : Object.assign(new Image(), { src: URL.createObjectURL(file), alt: '' });
  const name = Object.assign(document.createElement('p'), { textContent: fault ? `${file.name}: ${fault}` : file.name });
  const list = document.createElement('ol');
  for (const { index, label, probability } of found?.best ?? []) {
    const line = document.createElement('li');
    line.textContent = `${(100 * probability).toFixed(2)} %  ${label}`;
    Object.assign(line.dataset, { index, probability });
    list.append(line);
  }
  item.append(picture, name, list);
  answers.append(item);
}

try {
  const classify = await classifier();
  files.disabled = false;
  files.addEventListener('change', async () => {
    answers.replaceChildren();
    files.disabled = true; // one after the other: a runtime runs one image at a time
    document.body.dataset.state = 'busy';
    for (const file of files.files) {
      try {
        show(file, await classify(file));
      } catch (error) {
        show(file, null, error.message);
      }
    }
    files.disabled = false;
    document.body.dataset.state = 'ready';
  });
} catch (error) {
  say('failed', error.message);
}
