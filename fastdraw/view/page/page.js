"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const COLOURS = { write: getComputedStyle(document.documentElement).getPropertyValue("--write"),
  read: getComputedStyle(document.documentElement).getPropertyValue("--read") };
const ICONS = { play: "M7 4.5v15l12.5-7.5z", pause: "M6 5h4.5v14H6zM13.5 5H18v14h-4.5z" };
// The slider's knob is as wide as that, about: the curve stands right above it.
const KNOB = 16;

const state = { group: 0, item: 0, t: 0, windows: true, playing: false };
const group = () => data.groups[state.group];
const last = () => group().steps - 1;
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) key === "class" ? (made.className = value) : made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Pictures -------------------------------------------------------------------------------------------------------------

const decoded = new Map();
function load(sheet) {
  if (!decoded.has(sheet.src)) {
    const image = new Image();
    image.src = sheet.src;
    decoded.set(sheet.src, image);
  }
  return decoded.get(sheet.src);
}

/** Fits the canvas's pixels to the screen's, and gives its context; null while it has no size. */
function prepare(canvas, width, height) {
  const side = Math.round(canvas.clientWidth * (window.devicePixelRatio || 1));
  if (!side) return null;
  const down = Math.max(1, Math.round((side * height) / width));
  if (canvas.width !== side || canvas.height !== down) Object.assign(canvas, { width: side, height: down });
  return canvas.getContext("2d");
}

/** Cell t of a sheet; a sheet of one cell is the same at all glimpses. */
function drawCell(canvas, sheet, t) {
  const context = prepare(canvas, sheet.width, sheet.height);
  const image = load(sheet);
  if (!context || !image.naturalWidth) return null;
  const cell = Math.min(t, sheet.cells - 1);
  const left = (cell % sheet.columns) * sheet.width, top = Math.floor(cell / sheet.columns) * sheet.height;
  context.imageSmoothingEnabled = canvas.width < sheet.width;
  context.drawImage(image, left, top, sheet.width, sheet.height, 0, 0, canvas.width, canvas.height);
  return context;
}

/** The rectangle through the outermost filters' centres, with a band as wide as sigma along it, kept within the image. */
function drawWindow(context, box, colour) {
  if (!box || !state.windows) return;
  const [height, width] = group().size, { canvas } = context, scale = canvas.width / width;
  const sigma = box[3];
  const small = canvas.clientWidth < 120;
  const thin = Math.round((small ? 1 : 2) * (window.devicePixelRatio || 1));
  const band = Math.max(thin, Math.round(scale * Math.min(sigma, Math.min(height, width) / 8)));
  frame(context, box, band, small ? 0.6 : 0.45, colour);
  frame(context, box, thin, 1, colour);
}

function frame(context, [x, y, half], line, alpha, colour) {
  const [height, width] = group().size, { canvas } = context;
  const edges = (centre, length, pixels) => {
    if (centre + half < -0.5 || centre - half > length - 0.5) return null;
    return [centre - half, centre + half].map((edge) => Math.round(clamp(((edge + 0.5) * pixels) / length - line / 2, 0, pixels - line)));
  };
  const across = edges(x, width, canvas.width), down = edges(y, height, canvas.height);
  if (!across || !down) return;
  const [left, right] = across, [top, bottom] = down;
  context.fillStyle = colour;
  context.globalAlpha = alpha;
  context.beginPath();
  context.rect(left, top, right - left + line, bottom - top + line);
  // The inner rectangle is left out, where there is one.
  if (right - left > line && bottom - top > line) context.rect(left + line, top + line, right - left - line, bottom - top - line);
  context.fill("evenodd");
  context.globalAlpha = 1;
}

// What stands on the page ----------------------------------------------------------------------------------------------

function show() {
  const { item, t } = state, chosen = group().items[item];
  $("note").textContent = chosen.note || "";
  for (const panel of $("panels").children) {
    const { kind } = panel.dataset, box = chosen[kind] && chosen[kind][t];
    const canvas = panel.querySelector("canvas");
    const context = drawCell(canvas, kind === "read" ? chosen.image : chosen.frames, t);
    if (context) drawWindow(context, box, COLOURS[kind]);
    const name = panel.querySelector("strong").textContent.trim();
    canvas.setAttribute("aria-label", `${name}, ${chosen.name}, glimpse ${t + 1} of ${group().steps}` + (box ?
      `; ${kind} window centred ${box[0]} pixels from the left and ${box[1]} from the top, ${(2 * box[2]).toFixed(1)} wide` : ""));
    const numbers = panel.querySelector(".numbers");
    if (numbers) numbers.textContent = box ? `${(2 * box[2]).toFixed(1)} px wide, σ ${box[3].toFixed(2)}` : "";
    for (const patch of panel.querySelectorAll(".patches canvas")) drawCell(patch, chosen[patch.dataset.patch], t);
  }
  [...$("thumbs").children].forEach((button, i) => {
    const one = group().items[i], context = drawCell(button.firstChild, one.frames || one.image, t);
    if (context && one.frames && one.write) drawWindow(context, one.write[t], COLOURS.write);
    else if (context && !one.frames && one.read) drawWindow(context, one.read[t], COLOURS.read);
    button.setAttribute("aria-pressed", i === item);
  });
  showTime(chosen);
}

function showTime(chosen) {
  const { t } = state, slider = $("slider"), steps = group().steps;
  slider.value = t + 1;
  $("count").textContent = `${t + 1} / ${steps}`;
  const value = chosen.curve ? `${chosen.curve[t].toFixed(group().curve.digits)} ${group().curve.unit}` : "";
  slider.setAttribute("aria-valuetext", `glimpse ${t + 1} of ${steps}` + (value && `, ${group().curve.name} ${value}`));
  if (!chosen.curve) return;
  $("value").textContent = value;
  const plot = $("plot"), x = abscissa(t), y = ordinate(chosen.curve[t]);
  $("line").setAttribute("d", path(chosen.curve));
  $("cursor").setAttribute("d", `M${x} 0V${plot.clientHeight}`);
  $("dot").setAttribute("cx", x);
  $("dot").setAttribute("cy", y);
}

const abscissa = (t) => KNOB / 2 + (t / Math.max(1, last())) * ($("plot").clientWidth - KNOB);
const ordinate = (value) => { const h = $("plot").clientHeight - 4; return h + 2 - (h * Math.max(0, value)) / group().curve.top; };
const path = (curve) => "M" + curve.map((value, t) => `${abscissa(t).toFixed(1)} ${ordinate(value).toFixed(1)}`).join("L");

function showOthers() {
  $("chart").hidden = !group().curve;
  $("chart").style.display = group().curve ? "" : "none";
  if (!group().curve) return;
  $("curve").textContent = `${group().curve.name}:`;
  $("top").textContent = group().curve.top.toFixed(1);
  $("others").replaceChildren(...group().items.map((item) => {
    const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
    line.setAttribute("d", path(item.curve));
    return line;
  }));
}

function panel(kind, title, patches) {
  const head = element("div", { class: "head" }, element("strong", {}, title));
  if (group().items[0][kind]) head.firstChild.prepend(element("span", { class: "swatch", style: `border-color: var(--${kind})` }));
  head.append(element("span", { class: "numbers small" }));
  const made = element("figure", { class: "panel", "data-kind": kind }, head, element("canvas", { role: "img" }));
  const row = element("div", { class: "patches" });
  for (const [name, caption] of patches) {
    row.append(element("figure", {}, element("canvas", { "data-patch": name, "aria-hidden": "true" }), element("figcaption", {}, caption)));
  }
  if (patches.length) made.append(row);
  made.querySelector("canvas").style.aspectRatio = `${group().size[1]} / ${group().size[0]}`;
  return made;
}

function open(index) {
  Object.assign(state, { group: index, item: Math.min(state.item, data.groups[index].items.length - 1) });
  state.t = clamp(state.t, 0, last());
  [...$("groups").children].forEach((button, i) => button.setAttribute("aria-pressed", i === index));
  $("about").textContent = group().about;
  $("slider").max = group().steps;
  const first = group().items[0], panels = [];
  const kinds = [["read", "What it reads", [["seen", "from the image"], ["error", "from what is still missing"]], first.image],
    ["write", "What it draws", [["written", "light adds, dark takes away"]], first.frames]];
  for (const [kind, title, patches, there] of kinds) {
    if (there) panels.push(panel(kind, title, patches.filter(([name]) => first[name])));
  }
  $("panels").replaceChildren(...panels);
  $("thumbs").replaceChildren(...group().items.map((item, i) => {
    const button = element("button", { type: "button", "aria-label": item.name, title: item.name }, element("canvas", {}));
    button.firstChild.style.aspectRatio = `${group().size[1]} / ${group().size[0]}`;
    button.addEventListener("click", () => { state.item = i; show(); });
    return button;
  }));
  const windowless = !first.read && !first.write;
  $("toggle").style.display = windowless ? "none" : "";
  for (const item of group().items) for (const sheet of Object.values(item)) if (sheet && sheet.src) load(sheet).onload = redraw;
  showOthers();
  show();
}

let waiting = 0;
function redraw() {
  cancelAnimationFrame(waiting);
  waiting = requestAnimationFrame(() => { showOthers(); show(); });
}

// Time -----------------------------------------------------------------------------------------------------------------

function go(t) {
  state.t = clamp(t, 0, last());
  show();
}

let timer = 0;
function play(on) {
  clearInterval(timer);
  state.playing = on;
  $("icon").setAttribute("d", on ? ICONS.pause : ICONS.play);
  $("play").setAttribute("aria-label", on ? "Pause" : "Play");
  // A film is not read out.
  $("value").setAttribute("aria-live", on ? "off" : "polite");
  if (!on) return;
  if (state.t === last()) go(0);
  // About six seconds for an image, whatever the number of glimpses.
  timer = setInterval(() => (state.t < last() ? go(state.t + 1) : play(false)), clamp(6000 / group().steps, 70, 500));
}

function choose(item) {
  const there = group().items.length;
  state.item = (item + there) % there;
  show();
}

function scrub(event) {
  const box = $("plot").getBoundingClientRect();
  play(false);
  go(Math.round(((event.clientX - box.left - KNOB / 2) / Math.max(1, box.width - KNOB)) * last()));
}

function toggleWindows(on) {
  state.windows = $("windows").checked = on;
  show();
}

const KEYS = {
  ArrowLeft: () => { play(false); go(state.t - 1); }, ArrowRight: () => { play(false); go(state.t + 1); },
  ArrowUp: () => choose(state.item - 1), ArrowDown: () => choose(state.item + 1),
  Home: () => go(0), End: () => go(last()), " ": () => play(!state.playing), w: () => toggleWindows(!state.windows),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || !(event.key in KEYS)) return;
  const at = event.target;
  // A control that has a use of its own for the key keeps it; a button that is pressed already has none.
  if (event.key === " " && at.matches("input[type=checkbox], button:not([aria-pressed=true])")) return;
  event.preventDefault();
  KEYS[event.key]();
});
$("play").addEventListener("click", () => play(!state.playing));
$("slider").addEventListener("input", () => { play(false); go($("slider").value - 1); });
$("windows").addEventListener("change", () => toggleWindows($("windows").checked));
$("plot").addEventListener("pointerdown", (event) => { $("plot").setPointerCapture(event.pointerId); scrub(event); });
$("plot").addEventListener("pointermove", (event) => { if (event.buttons) scrub(event); });
window.addEventListener("resize", redraw);

document.title = data.title;
$("facts").textContent = data.facts;
if (data.groups.length > 1) {
  $("groups").append(...data.groups.map((one, i) => {
    const button = element("button", { type: "button" }, one.name);
    button.addEventListener("click", () => open(i));
    return button;
  }));
}
state.t = data.groups[0].steps - 1;
open(0);
play(false);
