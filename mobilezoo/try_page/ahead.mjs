// Frames of the camera, each prepared in a worker while the network answers the one before.

export class Ahead {
  constructor(networks) {
    this.worker = new Worker(new URL('prepare-worker.mjs', import.meta.url), { type: 'module' });
    this.waiting = new Map();
    this.count = 0;
    this.worker.onmessage = ({ data: { id, image, prepared } }) => {
      this.waiting.get(id).done({ image: new ImageData(image.data, image.width, image.height), prepared });
      this.waiting.delete(id);
    };
    this.worker.onerror = (event) => {
      for (const { fail } of this.waiting.values()) fail(new Error(event.message || 'the worker did not start'));
      this.waiting.clear();
    };
    this.worker.postMessage({ networks });
  }

  /** {image, prepared: for each network {tensor, bytes, ms}}; the image's bytes are away until then. */
  prepare({ data, width, height }) {
    const id = this.count++;
    return new Promise((done, fail) => {
      this.waiting.set(id, { done, fail });
      this.worker.postMessage({ id, image: { data, width, height } }, [data.buffer]);
    });
  }
}
