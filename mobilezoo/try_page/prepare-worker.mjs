// Prepares images beside the page's own thread, and passes them on to the networks' worker.
import { preparer } from './prepare.mjs';

let preparers = [];
let port = null;

function prepared(image, wanted) {
  return wanted.map((index) => {
    const start = performance.now();
    return { index, ...preparers[index](image), ms: performance.now() - start };
  });
}

self.onmessage = ({ data }) => {
  if (data.port) {
    port = data.port;
    return;
  }
  if (data.infos) {
    preparers = data.infos.map(preparer);
    return;
  }
  const { id, image, wanted } = data;
  try {
    const found = prepared(image, wanted);
    const buffers = found.flatMap(({ tensor, bytes }) => [tensor.buffer, bytes.buffer]);
    port.postMessage({ id, image, prepared: found }, [image.data.buffer, ...buffers]);
  } catch (error) {
    port.postMessage({ id, fault: error.message });
  }
};
