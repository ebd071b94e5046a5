// The film strip: a small picture of every chunk one can go back to, and a slider over it.

const KEPT = 400;

export class Timeline {
  constructor(strip, slider, rewind) {
    this.strip = strip;
    this.slider = slider;
    this.thumbs = new Map();  // chunk -> canvas
    this.indices = [];
    this.at = 0;
    slider.addEventListener("input", () => {
      const chunk = this.indices[slider.valueAsNumber];
      if (chunk === undefined || chunk === this.at) return;
      this.at = chunk;
      this.draw();
      rewind(chunk);
    });
    new ResizeObserver(() => this.draw()).observe(strip);
  }

  clear() {
    this.thumbs.clear();
    this.show([], 0);
  }

  // Remember how a chunk looks.
  keep(chunk, bitmap) {
    const height = 48, width = Math.max(1, Math.round((bitmap.width / bitmap.height) * height));
    const small = this.thumbs.get(chunk) ?? document.createElement("canvas");
    small.width = width;
    small.height = height;
    const pen = small.getContext("2d");
    pen.imageSmoothingQuality = "high";
    pen.drawImage(bitmap, 0, 0, width, height);
    this.thumbs.set(chunk, small);
    if (this.thumbs.size > KEPT) this.thumbs.delete(this.thumbs.keys().next().value);
    this.draw();
  }

  show(indices, at) {
    this.indices = indices;
    this.at = at;
    const last = indices.length ? indices[indices.length - 1] : 0;
    for (const chunk of this.thumbs.keys()) if (chunk > last) this.thumbs.delete(chunk);
    this.slider.max = Math.max(0, indices.length - 1);
    this.slider.value = Math.max(0, indices.indexOf(at));
    this.draw();
  }

  // Drawn once a picture of the screen, however often that is asked for.
  draw() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => { this.asked = false; this.#paint(); });
  }

  #paint() {
    const { strip, indices } = this, scale = Math.min(2, devicePixelRatio || 1);
    const width = strip.clientWidth, height = strip.clientHeight;
    if (!width) return;
    strip.width = width * scale;
    strip.height = height * scale;
    const pen = strip.getContext("2d");
    pen.scale(scale, scale);
    if (!indices.length) return;
    const step = width / Math.max(indices.length, 14), position = indices.indexOf(this.at);
    // Each picture covers its share of the strip; what does not fit is cut off at the edges.
    indices.forEach((chunk, i) => {
      const small = this.thumbs.get(chunk) ?? this.#near(chunk);
      pen.globalAlpha = i > position ? 0.3 : 1;
      if (!small) return;
      const factor = Math.max(step / small.width, height / small.height);
      const wide = step / factor, high = height / factor;
      pen.drawImage(small, (small.width - wide) / 2, (small.height - high) / 2, wide, high, i * step, 0, step + 0.5, height);
    });
    pen.globalAlpha = 1;
    const x = (position + 1) * step;
    pen.fillStyle = "#ffd65c";
    pen.fillRect(Math.min(width - 3, x - 1.5), 0, 3, height);
  }

  #near(chunk) {
    for (let d = 1; d < 4; d++) {
      const found = this.thumbs.get(chunk - d) ?? this.thumbs.get(chunk + d);
      if (found) return found;
    }
    return undefined;
  }
}
