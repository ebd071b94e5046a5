// The connection to the server: messages out, messages and pictures in, and back after a break.

const HEADER = 12;
const FINAL = new Set([4001, 4002, 4003, 4004, 4401, 4403]);

function identity(store, name) {
  let value = store.getItem(name);
  if (!/^[0-9a-f]{32}$/.test(value ?? "")) {
    value = [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("");
    store.setItem(name, value);
  }
  return value;
}

export class Link extends EventTarget {
  constructor() {
    super();
    // A tab is a visit; saved moments belong to the browser.
    this.visit = identity(sessionStorage, "magi-world-visit");
    this.key = identity(localStorage, "magi-world-key");
    this.wait = 500;
    this.refused = "";
  }

  url(path, extra = {}) {
    const url = new URL(path, location.href);
    const query = { visit: this.visit, ...extra };
    const token = new URLSearchParams(location.search).get("token");
    if (token) query.token = token;
    url.search = new URLSearchParams(query);
    url.hash = "";
    return url;
  }

  open() {
    const world = new URLSearchParams(location.search).get("world");
    const url = this.url("play", { key: this.key, ...(world ? { world } : {}) });
    url.protocol = url.protocol.replace("http", "ws");
    this.refused = "";
    const socket = (this.socket = new WebSocket(url));
    socket.binaryType = "arraybuffer";
    socket.onopen = () => { this.wait = 500; };
    socket.onmessage = ({ data }) => {
      if (typeof data === "string") this.#message(JSON.parse(data));
      else this.#picture(data);
    };
    socket.onclose = ({ code, reason }) => {
      if (socket !== this.socket) return;
      if (FINAL.has(code)) {
        this.dispatchEvent(new CustomEvent("gone", { detail: this.refused || reason || "the server closed the connection" }));
        return;
      }
      this.dispatchEvent(new CustomEvent("lost"));
      setTimeout(() => this.open(), this.wait);
      this.wait = Math.min(8000, this.wait * 1.7);
    };
  }

  say(type, fields = {}) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ type, ...fields }));
  }

  #message(message) {
    if (message.type === "refused") this.refused = message.message;
    this.dispatchEvent(new CustomEvent(message.type, { detail: message }));
  }

  #picture(buffer) {
    const head = new DataView(buffer, 0, HEADER);
    const picture = {
      strip: head.getUint8(0) === 1, frame: head.getUint8(1), futures: head.getUint8(2),
      still: head.getUint8(3) === 1, chunk: head.getUint32(4), number: head.getUint32(8),
    };
    const file = new Uint8Array(buffer, HEADER);
    const type = file[0] === 0xff ? "image/jpeg" : "image/webp";
    createImageBitmap(new Blob([file], { type })).then((bitmap) => {
      this.dispatchEvent(new CustomEvent("picture", { detail: { ...picture, bitmap } }));
    }, () => {});
  }
}
