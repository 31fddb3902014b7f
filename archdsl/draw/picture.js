// ---------------------------------------------------------------- the picture of a model
const HEATS = { params: "Parameters", macs: "MACs", saved_bytes: "Activation bytes", state_bytes: "State bytes", bytes: "Output bytes" };
const count = (item) => item.count ?? 1;
const tensor = (item) => item.k === "input" || item.k === "output";
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
// `data`: root, definitions and what is open at first, as `to_json` in page.py tells them. `onchoose` hears of an item that was clicked, its address,
// and how often it is there. Places such as "2.0.1" lead to items.
function picture(data, body, onchoose = () => {}) {
  const open = new Set(data.opened), byPlace = new Map();
  let heat = "params", chosen = null;
  const inside = (item) => item.d === undefined ? null : data.definitions[item.d];
  const holds = (item) => item.d !== undefined && inside(item).items.length > 0;
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
    const told = (item.t !== item.n ? item.t ?? "" : "") + (item.shared ? " shared" : "");
    if (told) head.append(make("span", { class: "title", title: told }, told));
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
    const leaving = own.edges.filter((e) => e[0] === i), shown = (e) => e[4] ?? e[2];
    const next = new Set(leaving.filter((e) => e[1] === i + 1).map(shown)), far = new Map();
    for (const e of leaving) if (e[1] !== i + 1 && !next.has(shown(e))) far.set(shown(e), [...far.get(shown(e)) ?? [], own.items[e[1]].n]);
    const labels = [...next, ...[...far].map(([shape, names]) => `${shape} to ${[...new Set(names)].join(", ")}`)];
    return make("div", { class: "link", title: [...new Set(leaving.map((e) => `${e[2]} is ${e[3]}`))].join("\n") }, labels.join(" · "));
  }
  function draw() {
    byPlace.clear();
    const root = contents(data.root, "", 1, "");
    body.replaceChildren(root);
    drawEdges(root);
    if (chosen !== null) byPlace.get(chosen)?.element.classList.add("chosen");
  }
  function toggle(place) {
    if (open.has(place)) open.delete(place); else open.add(place);
    draw();
  }
  function choose(place) {
    byPlace.get(chosen)?.element.classList.remove("chosen");
    chosen = place;
    const found = byPlace.get(place);
    found.element.classList.add("chosen");
    onchoose(found.item, found.address, found.times);
  }
  function show(place) {
    const steps = place.split(".");
    for (let i = 1; i < steps.length; i++) open.add(steps.slice(0, i).join("."));
    draw();
    choose(place);
    byPlace.get(place).element.scrollIntoView({ block: "center" });
  }
  const less = () => { open.clear(); draw(); };
  const more = () => {
    for (const { item, place } of [...byPlace.values()]) if (holds(item)) open.add(place);
    draw();
  };
  const heatBy = (name) => { heat = name; draw(); };
  return { draw, walk, show, less, more, heatBy };
}
