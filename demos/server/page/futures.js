// What if: four futures of one moment, side by side. One of them can be kept.

import { Picture } from "./picture.js";

export class Futures {
  constructor(place, link) {
    this.place = place;
    this.link = link;
    this.panes = [];
  }

  get open() { return this.panes.length > 0; }

  show({ commands, chunks, wanted }, fps, frames) {
    const { place, link } = this;
    if (!commands.length) {
      place.replaceChildren();
      place.hidden = true;
      this.panes = [];
      return;
    }
    if (this.panes.length !== commands.length) this.#build(commands);
    this.panes.forEach((pane, i) => { if (document.activeElement !== pane.input) pane.input.value = commands[i]; });
    const seconds = ((chunks * frames) / fps).toFixed(1);
    this.title.textContent = chunks ? `What if… the next ${seconds} seconds, four ways` : "What if… dreaming four futures of this moment";
    for (const pane of this.panes) pane.keep.disabled = !chunks;
    this.more.disabled = chunks < wanted;
  }

  picture({ bitmap, futures }) {
    if (futures === this.panes.length) this.panes.forEach((pane, i) => pane.picture.draw(bitmap, i, futures));
  }

  #build(commands) {
    const { place, link } = this;
    const head = element("div", { className: "head" });
    this.title = element("b");
    this.more = element("button", { textContent: "further", title: "dream one chunk more", onclick: () => link.say("further") });
    const back = element("button", { textContent: "none of them", title: "back to the present (Esc)", onclick: () => link.say("drop") });
    head.append(this.title, this.more, back);
    this.panes = commands.map((command, row) => {
      const pane = element("div", { className: "future" });
      const canvas = element("canvas", { title: "keep this future" });
      const says = element("form", { className: "says" });
      const input = element("input", { value: command, ariaLabel: `what future ${row + 1} is told`, spellcheck: false });
      const keep = element("button", { type: "button", className: "keep", textContent: "keep", title: `key ${row + 1}` });
      keep.onclick = canvas.onclick = () => link.say("keep", { row });
      says.onsubmit = (event) => {
        event.preventDefault();
        if (input.value.trim()) link.say("future", { row, text: input.value.trim() });
        input.blur();
      };
      input.onchange = () => says.requestSubmit();
      says.append(input, keep);
      pane.append(canvas, says);
      return { pane, canvas, input, keep };
    });
    place.replaceChildren(head, ...this.panes.map((p) => p.pane));
    place.hidden = false;
    for (const pane of this.panes) pane.picture = new Picture(pane.canvas);
  }
}

export function element(name, fields = {}) {
  return Object.assign(document.createElement(name), fields);
}
