// Puts the page together. See link.js for what goes over the wire.

import { Futures, element } from "./futures.js";
import { Keys } from "./keys.js";
import { Link } from "./link.js";
import { Menus } from "./menus.js";
import { Picture } from "./picture.js";
import { Timeline } from "./timeline.js";
import { Stream } from "./stream.js";
import { Line } from "./words.js";

const at = (id) => document.getElementById(id);
const link = new Link();
const picture = new Picture(at("picture"));
const glow = at("glow").getContext("2d");
const keys = new Keys(at("pad"), link);
const futures = new Futures(at("futures"), link);
const timeline = new Timeline(at("strip"), at("slider"), (chunk) => link.say("rewind", { chunk }));
const line = new Line({ form: at("line"), text: at("text"), ghost: at("ghost"), matches: at("matches") }, tell);
const menus = new Menus(link, note);
const stream = new Stream(at("video"), link, (text) => { note(text, "error"); at("stream").checked = false; });
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const now = { world: null, paused: false, command: "", shown: -1, last: null, frames: 0, since: performance.now(), ping: 0, figures: {} };

function tell(text) {
  at("welcome").hidden = true;
  if (now.paused && !futures.open) link.say("pause", { on: false });
  link.say("say", { text });
}

function note(text, level = "info") {
  const item = element("div", { className: `note ${level}`, textContent: text });
  at("notes").append(item);
  setTimeout(() => item.remove(), level === "error" ? 7000 : 3500);
}

// What the server says

link.addEventListener("welcome", ({ detail }) => {
  const fresh = now.world?.fingerprint !== detail.world.fingerprint;
  const world = (now.world = detail.world);
  const [height, width] = world.frame_size;
  document.documentElement.style.setProperty("--ratio", width / height);
  document.title = `${world.name} · magi-world`;
  at("about").textContent = world.description || "a live video world that obeys text";
  at("world").hidden = detail.worlds.length < 2;
  at("world").replaceChildren(...detail.worlds.map((name) => element("option", { value: name, textContent: name, selected: name === world.source })));
  line.learn(world.commands, detail.limits.text);
  keys.learn(world.commands);
  menus.learn(detail);
  at("commands").replaceChildren(...world.commands.map((command) => {
    const button = element("button", { title: command.name, onclick: () => tell(command.name) });
    button.append(element("span", { textContent: command.name }));
    button.dataset.command = command.name;
    if (command.keys.length) button.append(element("small", { textContent: command.keys[0].replace("left", "←").replace("right", "→").replace("up", "↑").replace("down", "↓").replaceAll("+", "") }));
    return button;
  }));
  at("known").textContent = world.commands.length
    ? `This world knows: ${world.commands.map((c) => c.name).join(", ")}; and many other ways to say them.`
    : "This world takes any sentence.";
  at("tries").replaceChildren(...tries(world).map((text) => element("button", { textContent: text, onclick: () => tell(text) })));
  at("welcome").hidden = detail.back || !at("tries").children.length;
  at("gone").hidden = true;
  at("stream-label").hidden = !detail.video || !window.RTCPeerConnection;
  if (at("stream").checked) stream.open();
  if (fresh) timeline.clear();
  if (!fresh) note("connected again");
});

// Three things to try: moves that change the picture at once, and a sentence of several steps.
function tries(world) {
  const names = world.commands.map((c) => c.name).filter((name) => name !== world.default_command);
  const scene = names.find((name) => /night|rain|snow|red|blue|dark/.test(name));
  const goal = names.find((name) => /go to|turn around/.test(name));
  const picked = [...new Set([names.find((n) => /forward/.test(n)) ?? names[0], goal ?? names.find((n) => /left|right/.test(n)), scene])].filter(Boolean);
  const two = names.filter((n) => !picked.includes(n) && !n.includes("while")).slice(0, 1);
  if (picked[0] && two[0]) picked.push(`${two[0]} twice, then ${picked[0]}`);
  return picked.slice(0, 3);
}

link.addEventListener("state", ({ detail }) => {
  now.paused = detail.paused;
  if (detail.command !== null) now.command = detail.command;
  if (detail.cursor !== null) timeline.show(detail.indices, detail.cursor);
  at("pause").textContent = detail.paused ? "▶" : "❚❚";
  at("pause").classList.toggle("on", detail.paused);
  at("still").hidden = !detail.paused || futures.open;
  chips(detail.chips);
  menus.slots(detail.slots);
  says();
  clock(detail.cursor);
});

link.addEventListener("chunk", ({ detail }) => {
  const fresh = detail.command !== now.command;
  now.command = detail.command;
  now.seed = detail.seed;
  Object.assign(now.figures, detail);
  timeline.show(detail.indices, detail.index);
  chips(detail.chips);
  says(fresh);
  clock(detail.index);
  menus.begun(detail.seed);
});

link.addEventListener("understood", ({ detail }) => {
  const heard = at("heard");
  heard.className = detail.obeyed ? "" : "no";
  heard.replaceChildren();
  if (detail.obeyed) {
    const sure = detail.confidence < 0.995 ? ` ${Math.round(detail.confidence * 100)} %` : "";
    heard.append(`“${detail.text}” understood as `, element("b", { textContent: detail.answer || detail.command || detail.text }), element("small", { textContent: sure }));
  } else {
    heard.textContent = detail.answer;
  }
  clearTimeout(now.fade);
  now.fade = setTimeout(() => heard.classList.add("gone"), detail.obeyed ? 5000 : 9000);
});

link.addEventListener("futures", ({ detail }) => {
  futures.show(detail, now.world?.fps ?? 16, now.world?.frames_per_chunk ?? 8);
  at("frame").hidden = futures.open;
  at("whatif").classList.toggle("on", futures.open);
});

link.addEventListener("picture", ({ detail }) => {
  if (detail.number < now.shown && now.shown - detail.number < 2 ** 31) return;  // overtaken while it was decoded
  now.shown = detail.number;
  now.frames += 1;
  if (detail.strip) {
    futures.picture(detail);
  } else {
    now.last = detail.bitmap;
    picture.draw(detail.bitmap);
    if (detail.still || detail.frame % 4 === 3) timeline.keep(detail.chunk, detail.bitmap);
  }
  if (!calm.matches) glow.drawImage(detail.bitmap, 0, 0, detail.bitmap.width / detail.futures, detail.bitmap.height, 0, 0, 24, 24);
});

link.addEventListener("note", ({ detail }) => note(detail.text, detail.level));
link.addEventListener("refused", ({ detail }) => note(detail.message, "error"));
link.addEventListener("pong", ({ detail }) => { now.ping = performance.now() - detail.time; });
link.addEventListener("lost", () => note("the connection was lost; trying again…", "error"));
link.addEventListener("gone", ({ detail }) => {
  at("gone-why").textContent = detail;
  at("gone").hidden = false;
});
at("gone-back").onclick = () => { at("gone").hidden = true; now.shown = -1; link.open(); };

function chips(labels) {
  at("chips").replaceChildren(...labels.map((label, number) => {
    const chip = element("span", { className: "chip", textContent: label });
    chip.append(element("button", { textContent: "✕", title: "leave it out", ariaLabel: `leave out ${label}`, onclick: () => link.say("chip", { number }) }));
    return chip;
  }));
}

function says(fresh = false) {
  at("now").textContent = now.command;
  if (fresh) {
    at("now").classList.add("fresh");
    setTimeout(() => at("now").classList.remove("fresh"), 900);
  }
  for (const button of at("commands").children) button.classList.toggle("on", button.dataset.command === now.command);
}

function clock(index) {
  if (index === null || !now.world) return;
  const seconds = (index * now.world.frames_per_chunk) / now.world.fps;
  at("clock").textContent = `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;
}

// What the visitor does

at("pause").onclick = () => link.say("pause", { on: !now.paused });
at("step").onclick = () => link.say("step");
at("whatif").onclick = () => { at("welcome").hidden = true; link.say("whatif"); };
at("figures-button").onclick = () => { at("figures").hidden = !at("figures").hidden; };
at("stream").onchange = () => (at("stream").checked ? stream.open() : stream.close());
at("help-button").onclick = () => at("help").showModal();
at("world").onchange = () => link.say("world", { name: at("world").value });

const SHORTCUTS = {
  " ": () => at("pause").click(), ".": () => at("step").click(), Backspace: () => back(), f: () => at("whatif").click(),
  h: () => at("figures-button").click(), "?": () => at("help-button").click(), n: () => at("again").click(), s: () => at("places").click(),
  Enter: () => at("text").focus(), "/": () => at("text").focus(), t: () => at("text").focus(), Escape: () => futures.open && link.say("drop"),
};

function back() {
  const place = timeline.indices.indexOf(timeline.at);
  if (place > 0) link.say("rewind", { chunk: timeline.indices[place - 1] });
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const target = event.target;
  if (target.matches("input:not([type=range]), select")) return;
  if (futures.open && /^[1-4]$/.test(event.key)) link.say("keep", { row: Number(event.key) - 1 });
  else if (!futures.open && keys.press(event)) at("welcome").hidden = true;
  else if ((event.key === " " || event.key === "Enter") && target.matches("button")) return;
  else if (SHORTCUTS[event.key]) SHORTCUTS[event.key]();
  else return;
  event.preventDefault();
});
addEventListener("keyup", (event) => keys.lift(event));
// Nobody looks: the world waits, and leaves its turn to others.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) { now.resume = !now.paused; link.say("pause", { on: true }); } else if (now.resume && !futures.open) link.say("pause", { on: false });
});
addEventListener("resize", () => now.last && picture.draw(now.last));

setInterval(() => {
  link.say("ping", { time: performance.now() });
  const seconds = (performance.now() - now.since) / 1000, rate = now.frames / seconds;
  now.frames = 0;
  now.since = performance.now();
  const f = now.figures, rows = {
    "frames a second": rate.toFixed(1),
    "chunk made in": f.seconds ? `${(f.seconds * 1000).toFixed(0)} ms` : "–",
    "words to picture": f.delay ? `${(f.delay * 1000).toFixed(0)} ms` : "–",
    "computed together": f.together ?? "–", "in the queue": f.waiting ?? "–",
    "frames dropped": f.dropped ?? 0, "there and back": `${now.ping.toFixed(0)} ms`,
    "chunk": f.index ?? "–", "seed": f.seed ?? "–",
  };
  at("rows").replaceChildren(...Object.entries(rows).flatMap(([k, v]) => [element("dt", { textContent: k }), element("dd", { textContent: v })]));
}, 2000);

link.open();
