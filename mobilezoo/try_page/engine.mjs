// Preparation and networks in a worker each: while a frame is answered the next one is prepared, and the page stays free.

export class Engine {
  constructor() {
    this.waiting = new Map();
    this.count = 0;
    this.preparing = this.worker('prepare-worker.mjs', { type: 'module' });
    this.running = this.worker('network-worker.js');
    const { port1, port2 } = new MessageChannel();
    this.preparing.postMessage({ port: port1 }, [port1]);
    this.running.postMessage({ port: port2 }, [port2]);
    this.running.onmessage = ({ data }) => (data.id === undefined ? this.onLoad(data) : this.settle(data));
  }

  worker(name, options) {
    const worker = new Worker(new URL(name, import.meta.url), options);
    worker.onerror = (event) => {
      event.preventDefault(); // it is shown
      this.fault = `${name}: ${event.message || 'the worker did not start'}`;
      for (const id of this.waiting.keys()) this.settle({ id, fault: this.fault });
      this.onLoad({ fault: this.fault });
    };
    return worker;
  }

  onLoad() {}

  /**
   * Loads the networks, on `wasm` or `webgpu`; calls onProgress(index, share 0..1) meanwhile.
   * Returns for each {where: what computes, ms} or {fault: why it does not run here}.
   */
  load(infos, accelerator, threads, onProgress) {
    this.preparing.postMessage({ infos });
    this.running.postMessage({ infos, accelerator, threads });
    const found = [];
    return new Promise((done) => {
      const end = () => {
        this.wanted = infos.map((_, i) => i).filter((i) => !found[i].fault);
        done(found);
      };
      this.onLoad = ({ index, share, ...rest }) => {
        if (share !== undefined) {
          onProgress(index, share);
          return;
        }
        if (index === undefined) infos.forEach((_, i) => { found[i] ??= rest; }); // the worker itself failed
        else found[index] = rest;
        if (infos.every((_, i) => found[i])) end();
      };
      if (this.fault) this.onLoad({ fault: this.fault });
    });
  }

  /**
   * What the networks that run answer to {data: RGBA bytes, width, height}. The bytes are taken away from the caller.
   * Returns {image, answers: for each {index of the network, best, boxes, mask, bytes of the crop, times in ms}}.
   */
  answer({ data, width, height }) {
    const id = this.count++;
    return new Promise((done, fail) => {
      this.waiting.set(id, { done, fail });
      if (this.fault) this.settle({ id, fault: this.fault });
      else this.preparing.postMessage({ id, image: { data, width, height }, wanted: this.wanted }, [data.buffer]);
    });
  }

  settle({ id, image, answers, fault }) {
    const caller = this.waiting.get(id);
    this.waiting.delete(id);
    if (fault) caller?.fail(new Error(fault));
    else caller?.done({ image: new ImageData(image.data, image.width, image.height), answers });
  }
}
