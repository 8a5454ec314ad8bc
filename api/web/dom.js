// Elements are made here and nowhere else: children that are strings become text, never markup.

export const byId = (id) => document.getElementById(id);

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function fill(parent, ...children) {
  parent.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
}

// What could reorder or hide the text around it is shown as its code.
const INVISIBLE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g;

export function plain(value) {
  const text = typeof value === "object" && value !== null ? JSON.stringify(value) : String(value);
  return text.replace(INVISIBLE, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

export function option(value, label, selected = false) {
  const made = el("option", { value }, plain(label));
  made.selected = selected;
  return made;
}

export function table(headings, rows, caption) {
  const head = el("tr", {}, ...headings.map((text) => el("th", { scope: "col" }, text)));
  const body = rows.map((row) => el("tr", {}, ...row.map((cell) => el("td", {}, cell instanceof Node ? cell : plain(cell ?? "")))));
  return el("div", { class: "scroll" }, el("table", {}, el("caption", { class: "quiet" }, caption), el("thead", {}, head), el("tbody", {}, ...body)));
}

export function problem(error) {
  const box = byId("problem");
  const lines = [error.message, error.hint, error.requestId ? `request ${error.requestId}` : ""].filter(Boolean);
  fill(box, ...lines.map((line) => el("p", {}, plain(line))));
  box.hidden = !lines.length;
}

export function noProblem() {
  byId("problem").hidden = true;
  fill(byId("problem"));
}
