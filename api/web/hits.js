// One hit: a thumbnail or its text, its score, its columns, and what can be done from it.
import { el, plain } from "./dom.js";
import { path } from "./api.js";
import { thumbnail } from "./picture.js";

const APART = new Set(["text", "source", "media_type", "group"]);
const SIZE = 256;

export function card(hit, state, act) {
  const words = typeof hit.item.text === "string";
  const shown = words
    ? el("p", { class: "words", tabindex: "0", "aria-label": "Text" }, plain(hit.item.text))
    : thumbnail(`${path("v1", "collections", state.collection, "items", hit.id)}/content?size=${SIZE}`, plain(hit.id));
  const columns = Object.entries(hit.item).filter(([name]) => !APART.has(name));
  const rows = columns.flatMap(([name, value]) => [el("dt", {}, plain(name)), el("dd", {}, plain(value))]);
  return el("li", { class: "hit" }, shown,
    el("div", { class: "id" }, plain(hit.id)),
    hit.score === null ? null : el("div", { class: "score", title: "higher is nearer" }, `score ${hit.score.toFixed(4)}`),
    rows.length ? el("dl", {}, ...rows) : null,
    el("div", { class: "acts" }, ...buttons(hit, state, act)));
}

function buttons(hit, state, act) {
  const named = (text, what, more = {}) => el("button", { type: "button", "aria-label": `${text}: ${plain(hit.id)}`, click: what, ...more }, text);
  const found = [named("More like this", () => act.similar(hit.id))];
  if (state.canMark) {
    for (const [kind, text] of [["like", "Like"], ["unlike", "Unlike"]]) {
      const pressed = state[kind].has(hit.id);
      found.push(named(text, (event) => {
        act.mark(kind, hit.id);
        for (const button of event.target.parentElement.querySelectorAll("[data-mark]")) {
          button.setAttribute("aria-pressed", String(state[button.dataset.mark].has(hit.id)));
        }
      }, { "aria-pressed": pressed, "data-mark": kind }));
    }
  }
  if (state.heads.length) found.push(named("Classify", () => act.classify({ id: hit.id })));
  return found;
}
