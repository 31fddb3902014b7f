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
function line(row, kind, style, tip = "") {  // a part of a wire, in the row that it passes: rows stay whole where a page is broken
  const part = make("i", { class: `wire ${kind}` });
  Object.assign(part.style, style);
  row.append(part);
  if (tip) row.append(make("i", { class: `tip ${tip}` }));
}
function drawEdges(body) {
  const rows = [...body.children], boxes = rows.filter((c) => c.classList.contains("item")), wires = lanes(body.edges);
  const depth = wires.reduce((n, w) => Math.max(n, w.lane + 1), 0);
  body.style.paddingLeft = `${depth ? depth * 12 + 12 : 0}px`;
  for (const [s, t] of body.edges) if (s !== null && t - s === 1) line(rows[2 * s + 1], "down", {}, "down");
  for (const w of wires) {
    const far = 12 + w.lane * 12, left = (row) => `${-far - row.clientLeft}px`;
    const first = 2 * w.s, last = 2 * w.t, from = boxes[w.s], to = boxes[w.t];  // behind each item stands its link
    if (from) line(from, "out", { left: left(from), width: `${far}px` });
    for (const row of rows.slice(Math.max(first + 1, 0), last)) line(row, "by", { left: left(row) });
    line(to, "in", { left: left(to), width: `${far - 6}px` }, "right");
  }
  for (const box of boxes) {
    const inner = box.querySelector(":scope > .inside");
    if (inner) drawEdges(inner);
  }
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
