// Steering by hand: keys of the keyboard, and a pad for the mouse or a thumb.

const NAMES = { ArrowUp: "up", ArrowDown: "down", ArrowLeft: "left", ArrowRight: "right" };
const ARROWS = { up: ["▲", "u"], left: ["◀", "l"], down: ["▼", "d"], right: ["▶", "r"] };
const LETTERS = { w: "up", a: "left", s: "down", d: "right" };

export class Keys {
  constructor(pad, link) {
    this.pad = pad;
    this.link = link;
    this.held = new Set();
    this.known = new Set();
    addEventListener("blur", () => this.release());
    document.addEventListener("visibilitychange", () => document.hidden && this.release());
  }

  learn(commands) {
    const keys = commands.flatMap((c) => c.keys.flatMap((chord) => chord.split("+")));
    this.known = new Set(keys);
    // Letters stand for arrows in games; the server knows that as well.
    for (const [letter, arrow] of Object.entries(LETTERS)) if (this.known.has(arrow)) this.known.add(letter);
    const means = (key) => commands.find((c) => c.keys.includes(key))?.name ?? key;
    this.pad.replaceChildren(...Object.entries(ARROWS).filter(([key]) => this.known.has(key)).map(([key, [sign, area]]) => {
      const button = document.createElement("button");
      button.textContent = sign;
      button.title = means(key);
      button.setAttribute("aria-label", means(key));
      button.dataset.key = key;
      button.style.gridArea = area;
      button.addEventListener("pointerdown", (event) => {
        event.preventDefault();
        button.setPointerCapture(event.pointerId);
        this.#down(key);
      });
      for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) button.addEventListener(end, () => this.#up(key));
      button.addEventListener("contextmenu", (event) => event.preventDefault());
      return button;
    }));
  }

  // Whether the key steers this world.
  press(event) {
    const key = NAMES[event.key] ?? event.key.toLowerCase();
    if (!this.known.has(key)) return false;
    if (!event.repeat) this.#down(key);
    return true;
  }

  lift(event) {
    this.#up(NAMES[event.key] ?? event.key.toLowerCase());
  }

  release() {
    if (!this.held.size) return;
    this.held.clear();
    this.#light();
    this.link.say("release");
  }

  #down(key) {
    if (this.held.has(key)) return;
    this.held.add(key);
    this.#light();
    this.link.say("key", { key, down: true });
  }

  #up(key) {
    if (!this.held.delete(key)) return;
    this.#light();
    this.link.say("key", { key, down: false });
  }

  #light() {
    for (const button of this.pad.children) {
      const letter = Object.keys(LETTERS).find((l) => LETTERS[l] === button.dataset.key);
      button.classList.toggle("on", this.held.has(button.dataset.key) || this.held.has(letter));
    }
  }
}
