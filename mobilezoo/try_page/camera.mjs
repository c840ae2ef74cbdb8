// The camera as a source of frames; every way in which it can be refused has its own line.

const WITHOUT = 'Photographs still work.';
const REFUSALS = {
  NotAllowedError: 'The camera was refused: allow it for this page in the browser’s settings and start it again.',
  NotFoundError: 'No camera was found on this device.',
  NotReadableError: 'The camera is in use by another program, or switched off.',
  OverconstrainedError: 'The camera gives no picture of a usual size.',
};

export class Camera {
  constructor(video) {
    this.video = video;
    this.facing = 'environment';
    this.stream = null;
    this.released = false;
    this.noted = () => {};
    this.queue = Promise.resolve();
    this.canvas = document.createElement('canvas');
    this.pen = this.canvas.getContext('2d', { willReadFrequently: true });
  }

  /** Starts, or goes on with the other camera. Rejects with an Error that is one line for people. */
  async start() {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error(self.isSecureContext
        ? `This browser gives pages no camera. ${WITHOUT}`
        : `Browsers give the camera to https pages only: start \`mobilezoo try\` without --no-https. ${WITHOUT}`);
    }
    this.stop();
    const video = { facingMode: { ideal: this.facing }, width: { ideal: 640 }, height: { ideal: 480 } };
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
    } catch (error) {
      throw new Error(`${REFUSALS[error.name] ?? `The camera does not start: ${error.message}.`} ${WITHOUT}`);
    }
    this.video.srcObject = this.stream;
    await this.video.play();
    const settings = this.stream.getVideoTracks()[0].getSettings();
    this.facing = settings.facingMode ?? this.facing;
    this.step = 1000 / (settings.frameRate || 30);
  }

  /** Whether there is a second camera to turn to. Known once one has started. */
  async several() {
    return (await navigator.mediaDevices.enumerateDevices()).filter((one) => one.kind === 'videoinput').length > 1;
  }

  turn() {
    this.facing = this.facing === 'user' ? 'environment' : 'user';
    return this.start();
  }

  stop() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = null;
    this.video.srcObject = null;
  }

  /** The camera's next frame, {data: RGBA bytes, width, height, ms it took}; a new one each time; null after `release`. */
  next() {
    this.queue = this.queue.then(async () => {
      if (!this.released) await new Promise((done) => this.whenNew(done));
      return this.released ? null : this.grab();
    });
    return this.queue;
  }

  whenNew(done) {
    this.noted = done;
    if (this.video.requestVideoFrameCallback) this.video.requestVideoFrameCallback(done);
    else setTimeout(done, this.step); // Firefox before 132
  }

  /** Lets nobody wait for a frame any more, until `hold`. */
  release() {
    this.released = true;
    this.noted();
  }

  hold() {
    this.released = false;
  }

  grab() {
    const start = performance.now();
    const { videoWidth: width, videoHeight: height } = this.video;
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    this.pen.drawImage(this.video, 0, 0);
    const { data } = this.pen.getImageData(0, 0, width, height);
    return { data, width, height, ms: performance.now() - start };
  }
}

const channel = new MessageChannel();
const waiting = [];
channel.port1.onmessage = () => waiting.shift()?.();

/** Lets the page answer to clicks and draw. */
export const breathe = () => new Promise((done) => {
  waiting.push(done);
  channel.port2.postMessage(0);
});
