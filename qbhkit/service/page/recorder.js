// A microphone recorder in one file. The page imports it; the audio thread loads the same file again
// for the processor at its end. The page therefore needs no blob: address, which its strict
// Content-Security-Policy would refuse. (The widget for notebooks has only this text and imports it
// from a blob: address.)

const CHUNK = 2048; // samples handed over at a time: 43 ms at 48 kHz

const WORDS = {
  NotAllowedError: "The browser does not let this page use the microphone: allow it in the address bar, then press Record again.",
  NotFoundError: "No microphone was found: plug one in, or choose a file instead.",
  NotReadableError: "The microphone is in use by another program: close that, then press Record again.",
  NotSupportedError: "This editor gives its pages no microphone: open them in a browser, or choose a file instead.",
  SecurityError: "Browsers give a page the microphone only on the machine itself (localhost) or over HTTPS: choose a file instead.",
};

/** Return a sentence for an error that `start` has thrown. */
export const problem = (error) =>
  WORDS[error.name] ?? `The microphone does not work (${error.message}).`;

/**
 * Record the microphone: one channel, without the browser's filters for speech.
 *
 * @param {(peak: number) => void} onLevel called for each chunk with its peak, 0 to 1
 * @param {(samples: Float32Array) => void} onSamples called with each chunk, -1 to 1
 * @returns {Promise<{rate: number, stop: () => Promise<{samples: Float32Array, rate: number}>}>}
 *   the sampling rate in Hz, and the function that ends the recording and returns all of it
 * @throws {DOMException} NotAllowedError, NotFoundError or NotReadableError of getUserMedia;
 *   SecurityError if the page is neither on this machine nor served over HTTPS; NotSupportedError
 *   if it is in a frame that may not record, as in some editors
 */
export async function start(onLevel, onSamples = () => {}) {
  if (!navigator.mediaDevices) {
    throw new DOMException("no microphone for this address", "SecurityError");
  }
  if (document.featurePolicy?.allowsFeature("microphone") === false) {
    throw new DOMException("no microphone for this frame", "NotSupportedError");
  }
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
  });
  const context = new AudioContext();
  const chunks = [];
  let atEnd = () => {};

  async function close() {
    stream.getTracks().forEach((track) => track.stop());
    await context.close();
  }

  try {
    await context.audioWorklet.addModule(import.meta.url);
    await context.resume();
  } catch (error) {
    await close();
    throw error;
  }
  const tap = new AudioWorkletNode(context, "qbhkit-tap", {
    channelCount: 1,
    channelCountMode: "explicit", // two channels are mixed to one
  });
  tap.port.onmessage = ({ data }) => {
    if (data === null) {
      atEnd();
      return;
    }
    chunks.push(data);
    onLevel(data.reduce((peak, sample) => Math.max(peak, Math.abs(sample)), 0));
    onSamples(data);
  };
  context.createMediaStreamSource(stream).connect(tap);
  tap.connect(context.destination); // silent; some browsers run only connected nodes

  async function stop() {
    await new Promise((resolve) => {
      atEnd = resolve;
      tap.port.postMessage("stop");
    });
    await close();
    const samples = new Float32Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
    let at = 0;
    for (const chunk of chunks) {
      samples.set(chunk, at);
      at += chunk.length;
    }
    return { samples, rate: context.sampleRate };
  }

  return { rate: context.sampleRate, stop };
}

if (typeof registerProcessor === "function") {
  registerProcessor(
    "qbhkit-tap",
    class extends AudioWorkletProcessor {
      constructor() {
        super();
        this.chunk = new Float32Array(CHUNK);
        this.filled = 0;
        this.running = true;
        this.port.onmessage = () => {
          this.running = false;
          this.port.postMessage(this.chunk.slice(0, this.filled));
          this.port.postMessage(null);
        };
      }

      process([[samples]]) {
        if (!samples || !this.running) return this.running; // nothing is connected yet
        if (this.filled + samples.length > CHUNK) this.handOver();
        this.chunk.set(samples, this.filled);
        this.filled += samples.length;
        return true;
      }

      handOver() {
        this.port.postMessage(this.chunk.slice(0, this.filled));
        this.filled = 0;
      }
    },
  );
}
