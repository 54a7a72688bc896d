import { problem, start } from "./recorder.js";

const LONGEST_S = 30; // a longer hum finds no more songs
const SHORTEST_S = 2;
const TOO_QUIET = 0.01; // peak, of 1
const BARS = 80;

const WORDS = {
  busy: "The service is busy: wait a moment, then press Search again.",
  away: "The service cannot be reached: check that it still runs, then press Search again.",
  credential: "The credential is missing or wrong: type it above.",
  short: `That was too short: hum for at least ${SHORTEST_S} seconds.`,
  quiet: "That was too quiet: come closer to the microphone, or hum louder.",
  none: "No songs were found.",
};

const at = (id) => document.getElementById(id);
const record = at("record");
let limits = { most_bytes: Infinity, longest_s: LONGEST_S };
let token = sessionStorage.getItem("token");
let state = "idle"; // or "busy", or "recording"
let recording = null; // while the microphone is open
let levels = [];
let sent = null; // what was recorded or chosen last: {blob, name}

function say(text, wrong = false) {
  at("status").textContent = text;
  at("status").classList.toggle("wrong", wrong);
}

const clock = (seconds) =>
  `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

function draw() {
  const canvas = at("level");
  const pen = canvas.getContext("2d");
  const step = canvas.width / BARS;
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.fillStyle = getComputedStyle(canvas).color;
  levels.slice(-BARS).forEach((peak, bar) => {
    const height = Math.max(4, Math.sqrt(peak) * canvas.height); // so that a soft voice shows
    pen.fillRect(bar * step, (canvas.height - height) / 2, step * 0.6, height);
  });
  record.style.setProperty("--level", recording ? Math.sqrt(levels.at(-1) ?? 0) : 0);
}

// An inactive control is marked with aria-disabled and keeps the focus, which a disabled one loses.
function show(next) {
  state = next;
  record.classList.toggle("recording", state === "recording");
  at("label").textContent = state === "recording" ? "Stop" : "Record";
  record.ariaDisabled = String(state === "busy");
  at("again").ariaDisabled = at("file").ariaDisabled = String(state !== "idle");
}

async function begin() {
  at("playback").pause(); // the recording would include it
  show("busy");
  say("Allow the microphone, if the browser asks.");
  const longest = Math.min(LONGEST_S, limits.longest_s);
  let samples = 0;
  levels = [];
  try {
    recording = await start(
      (peak) => {
        levels.push(peak);
        draw();
      },
      (chunk) => {
        if (!recording) return; // the last chunk, after the button was pressed
        samples += chunk.length;
        const left = longest - samples / recording.rate;
        at("left").textContent = `${clock(Math.max(0, Math.ceil(left)))} left`;
        if (left <= 0) end();
      },
    );
  } catch (error) {
    show("idle");
    say(problem(error), true);
    return;
  }
  at("found").hidden = at("mine").hidden = true;
  show("recording");
  say("Listening: hum now, and press the button again when you are done.");
}

async function end() {
  const ending = recording;
  if (!ending) return; // pressed just as the time ran out
  recording = null;
  show("busy");
  const { samples, rate } = await ending.stop();
  at("left").textContent = "";
  draw();
  take(wav(samples, rate), "hum.wav");
  show("idle");
  if (samples.length < SHORTEST_S * rate) say(WORDS.short, true);
  else if (Math.max(...levels) < TOO_QUIET) say(WORDS.quiet, true);
  else await search();
}

function wav(samples, rate) {
  const data = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (offset, word) => [...word].forEach((c, i) => data.setUint8(offset + i, c.charCodeAt(0)));
  text(0, "RIFF");
  data.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  data.setUint32(16, 16, true);
  data.setUint16(20, 1, true); // PCM
  data.setUint16(22, 1, true); // channels
  data.setUint32(24, rate, true);
  data.setUint32(28, 2 * rate, true);
  data.setUint16(32, 2, true); // bytes a frame
  data.setUint16(34, 16, true); // bits
  text(36, "data");
  data.setUint32(40, 2 * samples.length, true);
  samples.forEach((x, i) => data.setInt16(44 + 2 * i, 32767 * Math.max(-1, Math.min(1, x)), true));
  return new Blob([data], { type: "audio/wav" });
}

function take(blob, name) {
  sent = { blob, name };
  const player = at("playback");
  URL.revokeObjectURL(player.src);
  player.src = URL.createObjectURL(blob);
  at("mine").hidden = false;
  at("found").hidden = true;
}

async function search() {
  if (sent.blob.size > limits.most_bytes) {
    say(`${sent.name} is larger than ${limits.most_bytes / 1e6} MB: cut out the part that matters.`, true);
    return;
  }
  show("busy");
  say("Searching …");
  try {
    const asked = new URLSearchParams({
      name: sent.name.slice(-200),
      anchor: at("start").checked ? "start" : "anywhere",
    });
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const answer = await fetch(`search?${asked}`, { method: "POST", body: sent.blob, headers });
    if (answer.ok) list(await answer.json());
    else if (answer.status === 401) askCredential();
    else say(answer.status === 503 ? WORDS.busy : (await answer.json()).detail, true);
  } catch {
    say(WORDS.away, true);
  } finally {
    show("idle");
  }
}

function askCredential() {
  at("credential").hidden = false;
  at("token").focus();
  say(WORDS.credential, true);
}

function list(body) {
  at("songs").replaceChildren(
    ...body.results.map((song) => {
      const item = document.createElement("li");
      for (const [kind, text] of [
        ["title", song.title || song.song_id],
        ["score", song.score.toFixed(2)],
        ["seconds", `${clock(song.start_s)} to ${clock(song.end_s)}`],
      ]) {
        const part = document.createElement("span");
        part.className = kind;
        part.textContent = text;
        item.append(part);
      }
      return item;
    }),
  );
  at("doubt").hidden = body.confident !== false;
  at("found").hidden = false;
  const [best] = body.results;
  say(best ? `It fits ${best.title || best.song_id} best.` : WORDS.none);
  at("mine").scrollIntoView({ block: "nearest" });
}

record.addEventListener("click", () => {
  if (state === "recording") end();
  else if (state === "idle") begin();
});
at("again").addEventListener("click", () => {
  if (state === "idle") search();
});
at("file").addEventListener("click", (event) => {
  if (state !== "idle") event.preventDefault();
});
at("file").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  if (!file) return;
  levels = [];
  draw();
  take(file, file.name);
  target.value = ""; // so that the same file can be chosen again
  search();
});
at("credential").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value.trim();
  sessionStorage.setItem("token", token);
  at("credential").hidden = true;
  if (sent) search();
  else say("Press the button and hum.");
});

fetch("healthz")
  .then((answer) => answer.json())
  .then((health) => {
    limits = health;
    at("credential").hidden = !health.needs_token || Boolean(token);
  })
  .catch(() => say(WORDS.away, true));
if (!window.isSecureContext) say(problem({ name: "SecurityError" }), true);
