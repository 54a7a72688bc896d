// The view of qbhkit.widgets.HumRecorder. It records, draws and plays; the kernel tracks the pitch
// and searches. The microphone is recorded by the module that the page of `qbhkit serve` uses too: its
// text comes with the widget and is imported from a blob: address.

const PIECE_S = 0.2; // length of a message with sound
const PIECE_BYTES = 1 << 20; // of a file in a message: notebook servers refuse more than 10 MB
const HOP_S = 0.1;
const SPAN_ST = 14; // least height of the drawing
const TRIM_MS = 400; // from the last move of a slider to the search

const clock = (seconds) =>
  `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
const tenths = (seconds) => `${seconds.toFixed(1)} s`;

function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  // otherwise JupyterLab takes arrow keys, Enter and Space as its shortcuts
  if (tag === "button" || tag === "input") made.setAttribute("data-lm-suppress-shortcuts", "true");
  made.append(...children);
  return made;
}

/** A drawing of lines over time, as wide as there is room. */
class Plot {
  constructor(label, ...kinds) {
    const space = "http://www.w3.org/2000/svg";
    this.svg = document.createElementNS(space, "svg");
    this.svg.setAttribute("viewBox", "0 0 1000 100");
    this.svg.setAttribute("preserveAspectRatio", "none");
    this.svg.setAttribute("role", "img");
    this.svg.setAttribute("class", "qbh-plot");
    this.label(label);
    this.paths = kinds.map((kind) => {
      const path = document.createElementNS(space, "path");
      path.setAttribute("class", `qbh-line-${kind}`);
      this.svg.append(path);
      return path;
    });
  }

  label(words) {
    this.svg.setAttribute("aria-label", words);
  }

  /** Draw lines of [seconds, semitones or null] between two moments; null is a gap. */
  draw(begin, end, ...lines) {
    const heights = lines.flat().map(([, st]) => st).filter((st) => st !== null);
    const [low, high] = [Math.min(...heights), Math.max(...heights)];
    const span = Math.max(SPAN_ST, high - low + 4);
    const top = (low + high + span) / 2;
    lines.forEach((line, number) => {
      let gap = true;
      const steps = line.map(([at, st]) => {
        if (st === null) {
          gap = true;
          return "";
        }
        const [x, y] = [((at - begin) / (end - begin)) * 1000, ((top - st) / span) * 100];
        const step = `${gap ? "M" : "L"}${x.toFixed(1)} ${y.toFixed(2)}${gap ? "h0" : ""}`;
        gap = false;
        return step;
      });
      this.paths[number].setAttribute("d", steps.join(""));
    });
  }
}

const overTime = (pitches, first = 0) => pitches.map((st, i) => [first + (i + 0.5) * HOP_S, st]);

const MICROPHONE = `<svg viewBox="0 0 24 24" aria-hidden="true">
  <g class="qbh-microphone"><rect x="9" y="3" width="6" height="11" rx="3"/>
  <path d="M6 11a6 6 0 0 0 12 0M12 17v4M9 21h6"/></g>
  <rect class="qbh-square" x="7" y="7" width="10" height="10" rx="2"/></svg>`;

let serial = 0; // ids must differ between the widgets of a notebook

function render({ model, el }) {
  const id = `qbh-${++serial}-${Math.random().toString(36).slice(2)}`;
  const button = (text, name = text) => make("button", { type: "button", "aria-label": name }, text);
  const slider = (name) =>
    make("input", { type: "range", step: HOP_S, min: 0, "aria-label": name });

  const record = make("button", { type: "button", class: "qbh-record", "aria-describedby": id });
  record.innerHTML = MICROPHONE;
  const recordLabel = make("span", {}, "Record");
  record.append(recordLabel);
  const status = make("p", { role: "status", id, class: "qbh-status" });
  const bar = make("span");
  const level = make("div", { class: "qbh-level", role: "meter", "aria-label": "Level",
    "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": 0 }, bar);
  const left = make("span", { class: "qbh-left" });
  const file = make("input", { type: "file", id: `${id}-file`, class: "qbh-unseen",
    accept: "audio/*,.wav,.flac,.ogg,.opus,.mp3,.aif,.aiff,.m4a,.mp4,.webm,.aac" });
  const choose = make("label", { for: `${id}-file`, class: "qbh-button" }, "Choose or drop a file");
  const here = button("Record on the kernel's machine (10 s at most)");
  here.hidden = true;
  const line = new Plot("Pitch of the hum", "hum");
  const veils = [make("div", { class: "qbh-veil" }), make("div", { class: "qbh-veil" })];
  const play = button("▶ Play", "Play the hum");
  const save = button("Save as wav");
  const [from, to] = [slider("Start of the hum"), slider("End of the hum")];
  const [fromText, toText] = [make("span"), make("span")];
  const canvas = make("div", { class: "qbh-canvas" }, line.svg, ...veils);
  const trim = make("div", { class: "qbh-trim" },
    make("label", {}, "From", from, fromText), make("label", {}, "To", to, toText));
  const mine = make("section", { class: "qbh-mine", "aria-label": "Your hum" }, canvas, trim,
    make("div", { class: "qbh-row" }, play, save));
  const over = new Plot("", "song", "match", "hum");
  const caption = make("figcaption");
  const list = make("ol", { "aria-label": "Songs it fits" });
  const found = make("section", { class: "qbh-found", "aria-label": "What it fits" },
    make("figure", {}, over.svg, caption), list);
  const root = make("div", { class: "qbh", role: "group", "aria-label": "Hum recorder" },
    make("div", { class: "qbh-head" }, record,
      make("div", {}, status, make("div", { class: "qbh-meter" }, level, left),
        make("div", { class: "qbh-row" }, make("span", {}, file, choose), here))),
    mine, found);
  el.append(root);

  let state = "idle"; // or "busy", or "recording"
  let recording = null; // while the microphone is open
  let gone = false;
  let live = []; // [seconds, semitones] while recording
  let pieces = [];
  let sent = { bytes: 0, samples: 0 };
  let shown = 0; // the song of the list that is drawn
  let trimming = null;
  const core = URL.createObjectURL(new Blob([model.get("_core")], { type: "text/javascript" }));
  const microphone = import(core);
  microphone.catch(() => {}); // reported when a recording begins
  const player = new Audio();
  let pressed = null; // the button whose sound plays
  const tickets = new Map(); // of sounds that were asked for

  function tell(words, problem) {
    status.textContent = words;
    status.classList.toggle("qbh-problem", problem);
  }

  // A message and not a change of the state: changes are held back while the kernel is busy, and
  // could arrive after the answer and replace it.
  function say(words, problem = false) {
    tell(words, problem);
    model.send({ type: "say", words, problem });
  }

  function show(next) {
    state = next;
    record.classList.toggle("qbh-recording", state === "recording");
    recordLabel.textContent = state === "recording" ? "Stop" : "Record";
    record.ariaDisabled = String(state === "busy");
    // Inactive controls are marked with aria-disabled and keep the focus, which disabled ones lose.
    for (const control of [file, here, play, save]) control.ariaDisabled = String(state !== "idle");
    trim.hidden = !model.get("_line").length;
    canvas.hidden = state !== "recording" && trim.hidden;
    mine.hidden = state === "idle" ? !model.get("_kept_s")[1] : state !== "recording";
    mine.classList.toggle("qbh-live", state === "recording");
    found.hidden = state !== "idle" || !model.get("_songs").length;
    if (state !== "recording") setLevel(0);
  }

  function setLevel(peak) {
    bar.style.width = `${100 * Math.sqrt(peak)}%`; // so that a soft voice shows
    bar.classList.toggle("qbh-loud", peak > 0.98);
    level.setAttribute("aria-valuenow", Math.round(100 * peak));
    record.style.setProperty("--level", Math.sqrt(peak));
  }

  // --- from the microphone or a file to the kernel

  function send(buffer) {
    sent.bytes += buffer.byteLength;
    model.send({ type: "piece" }, undefined, [buffer]);
  }

  function flush() {
    const joined = new Float32Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
    pieces.reduce((at, piece) => (joined.set(piece, at), at + piece.length), 0);
    pieces = [];
    if (joined.length) send(joined.buffer);
  }

  function onSamples(chunk) {
    sent.samples += chunk.length;
    pieces.push(chunk);
    if (pieces.length * chunk.length >= PIECE_S * recording.rate) flush();
    const rest = model.get("longest_s") - sent.samples / recording.rate;
    left.textContent = state === "recording" ? `${clock(Math.max(0, Math.ceil(rest)))} left` : "";
    if (rest <= 0) end();
  }

  async function begin() {
    hush();
    show("busy");
    say("Allow the microphone, if the browser asks.");
    sent = { bytes: 0, samples: 0 };
    live = [];
    let explain = () => "This page does not let the recorder's code run: choose a file instead.";
    try {
      const { start, problem } = await microphone;
      explain = problem;
      recording = await start(setLevel, onSamples);
    } catch (error) {
      here.hidden = false;
      show("idle");
      say(explain(error), true);
      return;
    }
    if (gone) {
      recording.stop();
      return;
    }
    model.send({ type: "begin", name: null, rate_hz: recording.rate });
    drawLive();
    show("recording");
    say("Listening: hum now, and press the button again when you are done.");
  }

  async function end() {
    if (state !== "recording") return; // pressed just as the time ran out
    show("busy");
    left.textContent = "";
    await recording.stop();
    flush();
    recording = null;
    hand();
  }

  async function take(chosen) {
    if (!chosen || state !== "idle") return;
    hush();
    if (chosen.size > model.get("_most_bytes")) {
      say(`${chosen.name} is larger than 20 MB: cut out the part that matters.`, true);
      return;
    }
    show("busy");
    sent = { bytes: 0, samples: 0 };
    let bytes;
    try {
      bytes = await chosen.arrayBuffer();
    } catch {
      show("idle");
      say(`${chosen.name} cannot be read: choose a file, not a folder.`, true);
      return;
    }
    model.send({ type: "begin", name: chosen.name, rate_hz: 0 });
    for (let at = 0; at < bytes.byteLength; at += PIECE_BYTES) send(bytes.slice(at, at + PIECE_BYTES));
    hand();
  }

  function hand() {
    say("Waiting for the kernel, which answers when no cell runs.");
    model.send({ type: "end", bytes: sent.bytes });
    show("idle");
  }

  // --- results of the kernel

  function drawStatus() {
    tell(model.get("status"), model.get("problem"));
  }

  function drawLive() {
    line.draw(0, Math.max(10, live.length ? live.at(-1)[0] : 0), live);
  }

  function drawHum() {
    if (state !== "idle") return;
    show("idle");
    const pitches = model.get("_line");
    const [begin, end] = model.get("_kept_s");
    const whole = pitches.length * HOP_S;
    if (!whole) return;
    line.draw(0, whole, overTime(pitches));
    from.max = to.max = whole.toFixed(1);
    from.value = begin.toFixed(1);
    to.value = end.toFixed(1);
    drawTrim();
  }

  function drawTrim() {
    for (const [control, text] of [[from, fromText], [to, toText]]) {
      control.ariaValueText = text.textContent = tenths(Number(control.value));
    }
    veils[0].style.width = `${(100 * from.value) / from.max}%`;
    veils[1].style.width = `${100 - (100 * to.value) / to.max}%`;
  }

  function drawList() {
    hush();
    shown = 0;
    list.replaceChildren(...model.get("_songs").map(row));
    if (state === "idle") show("idle");
    drawMatch();
  }

  function row(song, rank) {
    const seconds = `${clock(song.start_s)} to ${clock(song.end_s)}`;
    const title = make("button", { type: "button", class: "qbh-title" }, song.title);
    title.addEventListener("click", () => {
      shown = rank;
      drawMatch();
    });
    const tune = button("▶ Song", `Play song: ${song.title}, ${seconds}`);
    tune.addEventListener("click", () => toggle(tune, rank));
    const hum = button("▶ Hum", `Play hum beside ${song.title}`);
    hum.addEventListener("click", () => toggle(hum, null));
    const sure = song.confidence === null ? "" : `${Math.min(99, Math.round(100 * song.confidence))}% sure`;
    return make("li", {}, title, make("span", { class: "qbh-detail" }, `${seconds} · ${sure}`),
      make("span", { class: "qbh-plays" }, tune, hum));
  }

  function drawMatch() {
    const song = model.get("_songs")[shown];
    if (!song) return;
    [...list.children].forEach((item, rank) => {
      item.classList.toggle("qbh-shown", rank === shown);
      item.firstElementChild.ariaPressed = String(rank === shown);
    });
    const around = overTime(song.song, song.first_s);
    const match = around.map(([at, st]) => [at, at > song.start_s && at < song.end_s ? st : null]);
    over.draw(song.first_s, song.first_s + song.song.length * HOP_S, around, match, song.hum);
    over.label(`The hum over ${song.title}, from ${clock(song.start_s)} to ${clock(song.end_s)}`);
    caption.replaceChildren(make("b", { class: "qbh-key-hum" }, "your hum"), " over ",
      make("b", { class: "qbh-key-song" }, song.title),
      `, ${clock(song.start_s)} to ${clock(song.end_s)}`);
  }

  // --- sound

  function sound(rank) {
    const ticket = `${id}-${tickets.size}-${Math.random()}`;
    return new Promise((resolve) => {
      tickets.set(ticket, resolve);
      model.send({ type: "sound", rank, ticket });
    });
  }

  async function toggle(control, rank) {
    if (state !== "idle") return;
    const again = pressed === control;
    hush();
    if (again) return;
    const wav = await sound(rank);
    if (state !== "idle") return; // a recording has begun, and would include the song
    hush(); // another sound that was asked for meanwhile
    URL.revokeObjectURL(player.src);
    player.src = URL.createObjectURL(wav);
    pressed = control;
    control.textContent = control.textContent.replace("▶", "■");
    control.ariaLabel = control.ariaLabel.replace("Play", "Stop");
    await player.play().catch(hush);
  }

  function hush() {
    player.pause();
    if (pressed) {
      pressed.textContent = pressed.textContent.replace("■", "▶");
      pressed.ariaLabel = pressed.ariaLabel.replace("Stop", "Play");
    }
    pressed = null;
  }

  async function download() {
    if (state !== "idle") return;
    const link = make("a", { download: "hum.wav", href: URL.createObjectURL(await sound(null)) });
    link.click();
    URL.revokeObjectURL(link.href);
  }

  function onMessage(message, buffers) {
    if (message.type === "pitch") {
      live.push(...overTime(message.pitch, message.first * HOP_S));
      if (state === "recording") drawLive();
    } else {
      tickets.get(message.ticket)?.(new Blob([buffers[0]], { type: "audio/wav" }));
      tickets.delete(message.ticket);
    }
  }

  function onTrim({ target }) {
    const least = 2; // seconds, as the kernel wants
    if (target === from) from.value = Math.max(0, Math.min(from.value, to.value - least));
    else to.value = Math.min(to.max, Math.max(to.value, Number(from.value) + least));
    drawTrim();
    clearTimeout(trimming);
    trimming = setTimeout(() => {
      model.send({ type: "trim", start_s: Number(from.value), end_s: Number(to.value) });
    }, TRIM_MS);
  }

  record.addEventListener("click", () => {
    if (state === "recording") end();
    else if (state === "idle") begin();
  });
  file.addEventListener("click", (event) => {
    if (state !== "idle") event.preventDefault();
  });
  file.addEventListener("change", () => {
    take(file.files[0]);
    file.value = ""; // so that the same file can be chosen again
  });
  root.addEventListener("dragover", (event) => {
    event.preventDefault();
    root.classList.add("qbh-drop");
  });
  root.addEventListener("dragleave", () => root.classList.remove("qbh-drop"));
  root.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation();
    root.classList.remove("qbh-drop");
    take(event.dataTransfer.files[0]);
  });
  here.addEventListener("click", () => {
    if (state === "idle") model.send({ type: "record_here" });
  });
  play.addEventListener("click", () => toggle(play, null));
  save.addEventListener("click", download);
  for (const control of [from, to]) control.addEventListener("input", onTrim);
  player.addEventListener("ended", hush);
  model.on("msg:custom", onMessage);
  model.on("change:status change:problem", drawStatus);
  model.on("change:_line change:_kept_s", drawHum);
  model.on("change:_songs", drawList);
  show("idle");
  drawStatus();
  drawHum();
  drawList();

  return () => {
    gone = true;
    recording?.stop();
    hush();
    for (const address of [core, player.src]) URL.revokeObjectURL(address);
    model.off("msg:custom", onMessage);
  };
}

export default { render };
