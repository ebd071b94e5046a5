// The text line: completes what is typed from what the world knows, and remembers what was said.

const PATTERNS = ["{} twice", "{} for 3 seconds"];
const SHOWN = 5;

export class Line {
  constructor({ form, text, ghost, matches }, say) {
    Object.assign(this, { form, text, ghost, matches, say });
    this.known = [];
    this.history = [];
    this.back = 0;
    this.picked = -1;
    text.addEventListener("input", () => { this.picked = -1; this.#offer(); });
    text.addEventListener("focus", () => this.#offer());
    text.addEventListener("blur", () => setTimeout(() => this.#close(), 150));
    text.addEventListener("keydown", (event) => this.#key(event));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.picked >= 0 && this.offers[this.picked]) text.value = this.offers[this.picked].phrase;
      const words = text.value.trim();
      if (!words) return;
      this.history = [words, ...this.history.filter((w) => w !== words)].slice(0, 50);
      this.back = 0;
      text.value = "";
      this.#close();
      this.say(words);
    });
  }

  learn(commands, limit) {
    this.known = commands.flatMap((c) => [
      { phrase: c.name, command: c.name },
      ...c.phrases.map((phrase) => ({ phrase, command: c.name })),
      ...PATTERNS.map((p) => ({ phrase: p.replace("{}", c.name), command: c.name })),
    ]);
    this.text.maxLength = limit;
  }

  #key(event) {
    const { text } = this;
    const open = !this.matches.hidden && this.offers.length;
    if (event.key === "Tab" && this.ghost.value && text.value) {
      event.preventDefault();
      text.value = this.ghost.value;
      this.#offer();
    } else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      event.preventDefault();
      const up = event.key === "ArrowUp";
      if (open && text.value && this.back === 0) {
        const n = this.offers.length;
        this.picked = up ? (this.picked <= 0 ? n - 1 : this.picked - 1) : (this.picked + 1) % n;
        this.#draw();
      } else if (this.history.length) {
        this.back = Math.min(this.history.length, Math.max(0, this.back + (up ? 1 : -1)));
        text.value = this.back ? this.history[this.back - 1] : "";
        this.#close();
      }
    } else if (event.key === "Escape") {
      this.#close();
      text.blur();
    }
  }

  // What may be meant: the last part of a sentence is completed, the parts before it stay.
  #offer() {
    const typed = this.text.value;
    const cut = typed.match(/^(.*(?:,|\bthen\b)\s+)?(.*)$/is);
    const head = cut[1] ?? "", tail = cut[2].toLowerCase();
    const seen = new Set();
    this.offers = !tail ? [] : this.known
      .filter((k) => k.phrase.toLowerCase().startsWith(tail) || (tail.length > 1 && k.phrase.toLowerCase().includes(` ${tail}`)))
      .sort((a, b) => b.phrase.toLowerCase().startsWith(tail) - a.phrase.toLowerCase().startsWith(tail))
      .filter((k) => !seen.has(k.phrase) && seen.add(k.phrase))
      .slice(0, SHOWN)
      .map((k) => ({ phrase: head + k.phrase, command: k.command }));
    const first = this.offers.find((o) => o.phrase.toLowerCase().startsWith(typed.toLowerCase()));
    this.ghost.value = first && typed ? typed + first.phrase.slice(typed.length) : "";
    this.#draw();
  }

  #draw() {
    const { matches, offers } = this;
    matches.hidden = !offers.length || document.activeElement !== this.text;
    matches.replaceChildren(...offers.map((offer, i) => {
      const item = document.createElement("li");
      item.setAttribute("role", "option");
      item.className = i === this.picked ? "on" : "";
      item.textContent = offer.phrase;
      if (!offer.phrase.endsWith(offer.command)) {
        const small = document.createElement("small");
        small.textContent = offer.command;
        item.append(small);
      }
      item.addEventListener("pointerdown", (event) => {
        event.preventDefault();
        this.text.value = offer.phrase;
        this.form.requestSubmit();
      });
      return item;
    }));
    if (this.picked >= 0) this.ghost.value = "";
  }

  #close() {
    this.offers = [];
    this.picked = -1;
    this.ghost.value = "";
    this.matches.hidden = true;
  }
}
