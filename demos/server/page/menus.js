// The dialogs: saved moments, downloads, a new dream.

import { element } from "./futures.js";

const at = (id) => document.getElementById(id);
const COUNT = 4;

export class Menus {
  constructor(link, note) {
    this.link = link;
    this.note = note;
    this.filled = [];
    at("places").onclick = () => { this.#drawSlots(); at("places-dialog").showModal(); };
    at("take").onclick = () => at("take-dialog").showModal();
    at("again").onclick = () => at("again-dialog").showModal();
    at("take-film").onclick = () => this.#fetch("journey.mp4", {}, "the film is being made…");
    at("take-plain").onclick = () => this.#fetch("journey.mp4", { captions: "0" }, "the film is being made…");
    at("take-session").onclick = () => this.#fetch("session.jsonl", {}, "");
    at("again-random").onclick = () => this.#begin(Math.floor(Math.random() * 2 ** 31), null);
    at("again-same").onclick = () => this.#begin(this.seed ?? 0, null);
    at("again-form").onsubmit = (event) => {
      event.preventDefault();
      const start = at("start").value, seed = at("seed").value.trim();
      this.#begin(seed ? Number(seed) : Math.floor(Math.random() * 2 ** 31), start === "" ? null : start === "text" ? "text" : Number(start));
    };
    for (const dialog of document.querySelectorAll("dialog")) {
      dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    }
  }

  learn({ world, sessions }) {
    at("take-session-row").hidden = !sessions;
    at("start-label").hidden = !world.num_starts;
    const options = [["", "by the seed"], ...Array.from({ length: world.num_starts }, (_, i) => [String(i), String(i)]), ["text", "words alone"]];
    at("start").replaceChildren(...options.map(([value, textContent]) => element("option", { value, textContent })));
  }

  begun(seed) {
    this.seed = seed;
    at("seed").placeholder = String(seed);
  }

  slots(filled) {
    const changed = String(filled) !== String(this.filled);
    this.filled = filled;
    if (changed && at("places-dialog").open) this.#drawSlots();
  }

  #begin(seed, start) {
    at("again-dialog").close();
    this.link.say("reset", { seed, start, scene: null });
  }

  #drawSlots() {
    at("slots").replaceChildren(...Array.from({ length: COUNT }, (_, i) => {
      const slot = i + 1, full = this.filled.includes(slot);
      const card = element("div", { className: "slot" }), view = element("div", { className: "view" }), buttons = element("div");
      if (full) view.append(element("img", { src: this.link.url(`slot/${slot}`, { t: Date.now() }), alt: `moment ${slot}` }));
      else view.textContent = "empty";
      buttons.append(element("button", { textContent: full ? "save over" : "save here", onclick: () => { this.link.say("save", { slot }); setTimeout(() => this.#drawSlots(), 400); } }));
      if (full) buttons.append(element("button", { textContent: "go there", onclick: () => { at("places-dialog").close(); this.link.say("load", { slot }); } }));
      card.append(view, buttons);
      return card;
    }));
  }

  async #fetch(path, query, waiting) {
    at("take-dialog").close();
    if (waiting) this.note(waiting);
    const answer = await fetch(this.link.url(path, query));
    if (!answer.ok) {
      this.note(await answer.text(), "error");
      return;
    }
    const name = /filename="?([^";]+)/.exec(answer.headers.get("Content-Disposition") ?? "")?.[1] ?? path;
    const href = URL.createObjectURL(await answer.blob());
    element("a", { href, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(href), 60000);
    this.note(`downloaded ${name}`);
  }
}
