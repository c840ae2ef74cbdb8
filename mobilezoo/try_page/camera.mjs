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
    this.last = -Infinity;
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

  /** Whether the camera has a frame that was not taken yet. */
  due() {
    return performance.now() >= this.last + this.step - 2;
  }

  /** Resolves when that is so. */
  next() {
    return new Promise((done) => setTimeout(done, this.last + this.step - 1 - performance.now()));
  }

  /** The frame of this moment: {data: RGBA bytes, width, height}. */
  grab() {
    this.last = performance.now();
    const { videoWidth: width, videoHeight: height } = this.video;
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    this.pen.drawImage(this.video, 0, 0);
    return this.pen.getImageData(0, 0, width, height);
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
