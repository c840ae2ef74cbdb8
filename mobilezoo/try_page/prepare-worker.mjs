// Prepares frames beside the page's own thread, where the network runs.
import { preparer } from './prepare.mjs';

let preparers = [];

self.onmessage = ({ data: { networks, id, image } }) => {
  if (networks) {
    preparers = networks.map(preparer);
    return;
  }
  const prepared = preparers.map((prepare) => {
    const start = performance.now();
    return { ...prepare(image), ms: performance.now() - start };
  });
  const buffers = prepared.flatMap(({ tensor, bytes }) => [tensor.buffer, bytes.buffer]);
  self.postMessage({ id, image, prepared }, [image.data.buffer, ...buffers]);
};
