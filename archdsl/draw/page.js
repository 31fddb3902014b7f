"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const open = new Set(data.opened), byPlace = new Map();
const HEATS = { params: "Parameters", macs: "MACs", saved_bytes: "Activation bytes", state_bytes: "State bytes", bytes: "Output bytes" };
let heat = "params", chosen = null;

// ---------------------------------------------------------------- numbers and elements
function short(n, unit = "") {
  let prefix = 0;
  const prefixes = ["", "k", "M", "G", "T", "P", "E"];
  while (n >= 999.5 && prefix + 1 < prefixes.length) { n /= 1000; prefix++; }
  return (prefix ? Number(n.toPrecision(3)).toString() : String(n)) + (prefix || unit ? " " : "") + prefixes[prefix] + unit;
}
const unit = (figure) => figure.endsWith("bytes") ? "B" : "";
const full = (n) => n.toLocaleString("en-US");
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick" || name === "onkeydown") element[name] = value; else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}
const count = (item) => item.count ?? 1;
const inside = (item) => item.d === undefined ? null : data.definitions[item.d];
const tensor = (item) => item.k === "input" || item.k === "output";
const holds = (item) => item.d !== undefined && inside(item).items.length > 0;

// ---------------------------------------------------------------- places: "2.0.1" leads to an item
function* walk(item, place = "", times = 1, address = "") {
  yield { item, place, times, address };
  const own = inside(item);
  if (!own) return;
  const through = item.k === "block" ? address : address.slice(0, address.length - (item.p ?? "").length).replace(/\.$/, "");
  const base = item.k === "block" || item === data.root ? address : through;
  for (let i = 0; i < own.items.length; i++) {
    const below = own.items[i];
    yield* walk(below, place === "" ? String(i) : `${place}.${i}`, times * count(item), below.p ? (base ? `${base}.${below.p}` : below.p) : base);
  }
}
const share = (item, times) => {
  const whole = data.root[heat] ?? 0;
  return whole && item[heat] ? item[heat] * count(item) * times / whole : 0;
};

// ---------------------------------------------------------------- drawing
function figure(item) {
  const value = item[heat];
  if (value === null || value === undefined) return "";
  return short(value, unit(heat)) + (count(item) > 1 ? " each" : "");
}
function box(item, place, times, address) {
  const can = holds(item), isOpen = can && open.has(place), element = make("div", { class: `item ${item.k}`, "data-place": place });
  element.style.setProperty("--heat", Math.sqrt(Math.min(1, share(item, times))).toFixed(3));
  if (isOpen) element.classList.add("open");
  if (count(item) > 1) element.classList.add("folded");
  const head = make("div", { class: "head", tabindex: "0", role: "button", onclick: () => choose(place),
    onkeydown: (e) => { if (e.key === "Enter") choose(place); if (e.key === " " && can) { toggle(place); e.preventDefault(); } } });
  if (can) head.setAttribute("aria-expanded", String(isOpen));
  const turn = make("button", { class: "turn", tabindex: "-1", "aria-label": isOpen ? "close" : "open" }, can ? (isOpen ? "▾" : "▸") : "");
  turn.onclick = (e) => { e.stopPropagation(); if (can) toggle(place); };
  head.ondblclick = () => { if (can) toggle(place); };
  head.append(turn, make("b", {}, item.n));
  if (count(item) > 1) head.append(make("span", { class: "times" }, `× ${count(item)}`));
  if (item.t && item.t !== item.n) head.append(make("span", { class: "title", title: item.t }, item.t));
  head.append(make("span", { class: "figure" }, figure(item)));
  element.append(head);
  if (isOpen) element.append(contents(item, place, times * count(item), address));
  byPlace.set(place, { item, place, times, address, element });
  return element;
}
function contents(item, place, times, address) {
  const own = inside(item), body = make("div", { class: "inside" });
  const base = item.k === "block" || item === data.root ? address : address.slice(0, address.length - (item.p ?? "").length).replace(/\.$/, "");
  own.items.forEach((below, i) => {
    body.append(box(below, place === "" ? String(i) : `${place}.${i}`, times, below.p ? (base ? `${base}.${below.p}` : below.p) : base));
    if (i + 1 < own.items.length) body.append(link(own, i));
  });
  body.edges = own.edges;
  return body;
}
function link(own, i) {  // the shapes that leave item i; of those that pass the next one by, where they go
  const leaving = own.edges.filter((e) => e[0] === i), shown = (e) => e[2].length <= 30 ? e[2] : e[3];
  const next = new Set(leaving.filter((e) => e[1] === i + 1).map(shown)), far = new Map();
  for (const e of leaving) if (e[1] !== i + 1 && !next.has(shown(e))) far.set(shown(e), [...far.get(shown(e)) ?? [], own.items[e[1]].n]);
  const labels = [...next, ...[...far].map(([shape, names]) => `${shape} to ${[...new Set(names)].join(", ")}`)];
  return make("div", { class: "link", title: [...new Set(leaving.map((e) => `${e[2]} is ${e[3]}`))].join("\n") }, labels.join(" · "));
}
function lanes(edges) {  // edges that pass others by, each in the first free lane; inner ones first
  const wires = edges.map(([s, t]) => ({ s: s ?? -1, t })).filter((w) => w.t - w.s > 1 && !(w.s === -1 && w.t === 0)).sort((a, b) => (a.t - a.s) - (b.t - b.s));
  const taken = [];
  for (const wire of wires) {
    let lane = 0;
    while ((taken[lane] ??= []).some((o) => wire.s < o.t && o.s < wire.t)) lane++;
    taken[lane].push(wire);
    wire.lane = lane;
  }
  return wires;
}
const SVG = "http://www.w3.org/2000/svg";
function wire(svg, path, x, y, right) {
  const line = document.createElementNS(SVG, "path"), tip = document.createElementNS(SVG, "path");
  line.setAttribute("d", path);
  tip.setAttribute("d", right ? `M${x} ${y}l-7 -3.5v7z` : `M${x} ${y}l-3.5 -7h7z`);
  tip.setAttribute("class", "tip");
  svg.append(line, tip);
}
function drawEdges(body) {
  const boxes = [...body.children].filter((c) => c.classList.contains("item")), wires = lanes(body.edges);
  const depth = wires.reduce((n, w) => Math.max(n, w.lane + 1), 0), gutter = depth ? depth * 12 + 12 : 0;
  body.style.paddingLeft = `${gutter}px`;
  for (const inner of body.querySelectorAll(":scope > .item > .inside")) drawEdges(inner);
  body.querySelector(":scope > svg")?.remove();
  const svg = document.createElementNS(SVG, "svg");
  for (const [s, t] of body.edges) {
    if (s === null || t - s !== 1) continue;
    const from = boxes[s], to = boxes[t], y = from.offsetTop + from.offsetHeight, x = gutter + 20;
    wire(svg, `M${x} ${y}V${to.offsetTop - 6}`, x, to.offsetTop, false);
  }
  for (const w of wires) {
    const x = gutter - 12 - w.lane * 12, to = boxes[w.t], y = to.offsetTop + 15;
    const start = w.s < 0 ? `M${x} -6` : `M${gutter} ${boxes[w.s].offsetTop + boxes[w.s].offsetHeight - 8}H${x + 4}q-4 0 -4 4`;
    wire(svg, `${start}V${y - 4}q0 4 4 4H${gutter - 6}`, gutter, y, true);
  }
  body.prepend(svg);
}
function draw() {
  byPlace.clear();
  const root = contents(data.root, "", 1, ""), picture = document.getElementById("picture");
  picture.replaceChildren(root);
  drawEdges(root);
  if (chosen !== null) byPlace.get(chosen)?.element.classList.add("chosen");
}
function toggle(place) {
  if (open.has(place)) open.delete(place); else open.add(place);
  draw();
}

// ---------------------------------------------------------------- details
function choose(place) {
  byPlace.get(chosen)?.element.classList.remove("chosen");
  chosen = place;
  const found = byPlace.get(place);
  found.element.classList.add("chosen");
  tell(found.item, found.address, found.times);
}
function tell(item, address, times) {
  const rows = [], row = (name, ...value) => rows.push(make("tr", {}, make("td", { class: "soft" }, name), make("td", {}, ...value)));
  const span = item.l && item.l !== item.p ? `${address} to ${item.l.split(".").pop()}` : address;
  if (address && (item.p || item.k === "op")) row(item.p ? "address" : "inside", make("code", {}, span));
  if (count(item) > 1) row("alike", `${count(item)}; the figures are those of one, activation bytes the mean`);
  if ((item.calls ?? 1) > 1) row("applied", `${item.calls} times with the same weights; the activation bytes are those of all`);
  for (const [name, title] of Object.entries(HEATS)) {
    const value = item[name] ?? (item[name] === null ? null : 0), part = data.root[name] ? value * count(item) * times / data.root[name] : 0;
    if (value === null || tensor(item) && name !== "bytes") continue;
    row(title, `${full(value)}${unit(name) && " B"}`, make("span", { class: "soft" }, part && name !== "bytes" ? `  ${(100 * part).toPrecision(3)} % of the model` : ""));
  }
  if (item.o) row("result", make("code", {}, item.o), make("span", { class: "soft" }, item.e !== item.o ? `  here ${item.e}` : ""));
  for (const [path, kind, type] of item.w ?? []) row(kind || "reads", make("code", {}, `${path}: ${type}`));
  if (item.unknown) row("cost", "not known of a foreign op");
  const parts = [make("h2", {}, item.n + (count(item) > 1 ? ` × ${count(item)}` : "")), ...(item.t && item.t !== item.n ? [make("p", { class: "soft" }, item.t)] : [])];
  if (item.doc) parts.push(make("p", {}, ...item.doc.split("`").map((text, i) => i % 2 ? make("code", {}, text) : text)));
  parts.push(make("table", {}, ...rows));
  if (item.s) parts.push(...source(item.s));
  document.getElementById("details").replaceChildren(...parts);
  const here = document.querySelector("pre .here");  // scrolled by hand: scrollIntoView would move the page as well
  if (here) here.parentElement.scrollTop = here.offsetTop - here.parentElement.clientHeight / 3;
}
function source([file, first, last]) {
  const [name, text] = data.sources[file], lines = text.replace(/\n$/, "").split("\n");
  const shown = lines.map((line, i) => make("span", { "data-line": String(i + 1), ...(i + 1 >= first && i + 1 <= last ? { class: "here" } : {}) }, line || " "));
  return [make("p", { class: "soft" }, `${name}:${first}${last > first ? `–${last}` : ""}`), make("pre", {}, ...shown)];
}

// ---------------------------------------------------------------- search, heat, theme
function search(text) {
  const hits = document.getElementById("hits"), wanted = text.trim().toLowerCase(), found = [];
  if (wanted) {
    for (const at of walk(data.root)) {
      const texts = tensor(at.item) ? [at.item.n] : [at.item.n, at.item.t ?? "", at.address];  // inputs and outputs share the address around them
      if (at.place !== "" && texts.some((t) => t.toLowerCase().includes(wanted))) found.push(at);
      if (found.length === 60) break;
    }
  }
  hits.hidden = !wanted;
  const lines = found.map((at) => make("li", {}, make("button", { onclick: () => { hits.hidden = true; show(at.place); } }, at.item.n, " ",
    make("small", {}, [at.item.t, at.address].filter(Boolean).join(" · ")))));
  hits.replaceChildren(...(lines.length ? lines : [make("li", { class: "soft" }, "nothing found")]));
}
function show(place) {
  const steps = place.split(".");
  for (let i = 1; i < steps.length; i++) open.add(steps.slice(0, i).join("."));
  draw();
  choose(place);
  byPlace.get(place).element.scrollIntoView({ block: "center" });
}
function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  document.getElementById("theme").textContent = theme === "dark" ? "Light" : "Dark";
}
function start() {
  const root = data.root, sizes = Object.entries(data.sizes).map(([k, v]) => `${k}=${v}`).join(", ");
  document.getElementById("name").textContent = data.name;
  document.getElementById("totals").textContent = `${short(root.params ?? 0)} parameters, ${short(root.macs ?? 0)} MACs, ${short(root.saved_bytes ?? 0, "B")} activations`
    + `, ${short(root.state_bytes ?? 0, "B")} state at ${sizes || "its only size"}, ${data.dtype}`;
  const select = document.getElementById("heat");
  for (const [name, title] of Object.entries(HEATS)) if (name !== "bytes") select.append(make("option", { value: name }, title + (root[name] ? "" : " (none)")));
  select.onchange = () => { heat = select.value; draw(); };
  document.getElementById("search").oninput = (e) => search(e.target.value);
  document.getElementById("search").onkeydown = (e) => {
    if (e.key === "Escape") document.getElementById("hits").hidden = true;
    if (e.key === "Enter") document.querySelector("#hits button")?.click();
  };
  document.getElementById("less").onclick = () => { open.clear(); draw(); };
  document.getElementById("more").onclick = () => {
    for (const { item, place } of [...byPlace.values()]) if (holds(item)) open.add(place);
    draw();
  };
  document.getElementById("theme").onclick = () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  addEventListener("resize", draw);
  draw();
  tell(root, "", 1);
}
start();
