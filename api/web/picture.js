// Pictures: the one that is looked for, and those that are shown. Canvases need neither data: nor blob: addresses.
import { byId, el } from "./dom.js";
import { blob } from "./api.js";

const MOST_BYTES = 2_500_000;
const MOST_SIDE = 2048;
let chosen = null;

export const picture = () => chosen;

async function choose(file) {
  const map = await createImageBitmap(file).catch(() => null);
  if (map) paint(byId("preview").querySelector("canvas"), map);
  byId("preview").hidden = !map;
  const sent = map && file.size > MOST_BYTES ? await smaller(map) : file;
  chosen = { name: file.name || "pasted picture", base64: await base64(sent) };
  const note = sent === file ? "" : `, sent at ${MOST_SIDE} pixels because it is large`;
  byId("drop-note").textContent = `${chosen.name}${note}`;
}

export function forget() {
  chosen = null;
  byId("preview").hidden = true;
  byId("picture").value = "";
  byId("drop-note").textContent = "choose, drop or paste one";
}

export function watch(onPicture) {
  const drop = byId("drop");
  const take = async (file) => { if (file) { await choose(file); onPicture(); } };
  byId("picture").addEventListener("change", (event) => take(event.target.files[0]));
  byId("no-picture").addEventListener("click", () => { forget(); byId("picture").focus(); });
  document.addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
    if (file && !byId("picture-row").hidden) { event.preventDefault(); take(file); }
  });
  for (const kind of ["dragover", "drop", "dragleave"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragover");
      if (kind === "drop" && !byId("picture-row").hidden) take(event.dataTransfer.files[0]);
    });
  }
}

function paint(canvas, map) {
  canvas.width = map.width;
  canvas.height = map.height;
  canvas.getContext("2d").drawImage(map, 0, 0);
}

async function smaller(map) {
  const scale = Math.min(1, MOST_SIDE / Math.max(map.width, map.height));
  const canvas = new OffscreenCanvas(Math.max(1, Math.round(map.width * scale)), Math.max(1, Math.round(map.height * scale)));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(map, 0, 0, canvas.width, canvas.height);
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 });
}

function base64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

// A thumbnail is fetched when it comes near the window; what cannot be shown says so in words.
const near = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((one) => one.isIntersecting)) {
    near.unobserve(entry.target);
    show(entry.target);
  }
}, { rootMargin: "300px" });

export function thumbnail(where, label) {
  const canvas = el("canvas", { role: "img", "aria-label": label, width: 1, height: 1, "data-where": where });
  const box = el("div", { class: "shown" }, canvas);
  near.observe(canvas);
  return box;
}

async function show(canvas) {
  try {
    paint(canvas, await createImageBitmap(await blob(canvas.dataset.where)));
  } catch (error) {
    canvas.replaceWith(el("span", { class: "quiet" }, error.status === 404 || error.status === 405 ? "no picture is kept" : "the picture cannot be shown"));
  }
}
