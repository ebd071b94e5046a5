// Draws small frames large. WebGL 2 with Catmull-Rom interpolation, or the browser's own smoothing.

const VERTEX = `#version 300 es
out vec2 place;
void main() {
  vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1) * 2.0;
  place = vec2(corner.x, 1.0 - corner.y);
  gl_Position = vec4(corner * 2.0 - 1.0, 0.0, 1.0);
}`;

// Sixteen texels around each point, weighted by the Catmull-Rom cubic: sharp, and never a block grid.
const FRAGMENT = `#version 300 es
precision highp float;
in vec2 place;
out vec4 colour;
uniform sampler2D frame;
uniform vec4 part;  // the rectangle of the frame that is shown, in texels: x, y, width, height
vec4 weights(float t) {
  float t2 = t * t, t3 = t2 * t;
  return vec4(-0.5 * t3 + t2 - 0.5 * t, 1.5 * t3 - 2.5 * t2 + 1.0, -1.5 * t3 + 2.0 * t2 + 0.5 * t, 0.5 * t3 - 0.5 * t2);
}
void main() {
  vec2 at = place * part.zw - 0.5, base = floor(at), rest = at - base;
  vec4 wx = weights(rest.x), wy = weights(rest.y);
  vec3 sum = vec3(0.0);
  for (int j = 0; j < 4; j++)
    for (int i = 0; i < 4; i++) {
      vec2 texel = clamp(base + vec2(i - 1, j - 1), vec2(0.0), part.zw - 1.0) + part.xy;
      sum += texelFetch(frame, ivec2(texel), 0).rgb * wx[i] * wy[j];
    }
  colour = vec4(clamp(sum, 0.0, 1.0), 1.0);
}`;

function program(gl) {
  const made = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made));
  return made;
}

export class Picture {
  constructor(canvas) {
    this.canvas = canvas;
    try {
      const gl = (this.gl = canvas.getContext("webgl2", { alpha: false, antialias: false, preserveDrawingBuffer: true }));
      const made = program(gl);
      gl.useProgram(made);
      gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
      for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, gl.NEAREST);
      for (const name of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, name, gl.CLAMP_TO_EDGE);
      this.part = gl.getUniformLocation(made, "part");
    } catch {
      this.gl = null;
      this.flat = canvas.getContext("2d");
      if (!this.flat) {  // the canvas has a broken WebGL context: a fresh one takes its place
        const fresh = canvas.cloneNode();
        canvas.replaceWith(fresh);
        this.canvas = fresh;
        this.flat = fresh.getContext("2d");
      }
    }
  }

  // Shows the n-th of `count` pictures that lie side by side in the bitmap (or video).
  draw(bitmap, n = 0, count = 1) {
    const canvas = this.canvas;
    const whole = bitmap.videoWidth ?? bitmap.width, height = bitmap.videoHeight ?? bitmap.height;
    if (!whole || !height) return;
    const width = whole / count;
    const scale = Math.min(2, window.devicePixelRatio || 1);
    const wide = Math.max(1, Math.round(canvas.clientWidth * scale)), high = Math.max(1, Math.round(canvas.clientHeight * scale));
    if (canvas.width !== wide || canvas.height !== high) { canvas.width = wide; canvas.height = high; }
    const gl = this.gl;
    if (!gl) {
      this.flat.imageSmoothingEnabled = true;
      this.flat.imageSmoothingQuality = "high";
      this.flat.drawImage(bitmap, n * width, 0, width, height, 0, 0, wide, high);
      return;
    }
    gl.viewport(0, 0, wide, high);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
    gl.uniform4f(this.part, n * width, 0, width, height);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }
}
