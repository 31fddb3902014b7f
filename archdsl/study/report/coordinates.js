// ---------------------------------------------------------------- parallel coordinates: an axis for each objective and knob, a line for each trial
const LINES = 1000, AXES = 10, HEIGHT = 360, TOP = 44, BOTTOM = HEIGHT - 26;
const brushes = new Map();  // axis -> [low, high] in places on it
let axes = [], lines = new Map();

const mean = (xs) => xs.reduce((a, b) => a + b, 0) / xs.length;
function firstAxes() {  // objectives, then the knobs that matter most, in the order of the spec
  const weight = (a) => Math.max(0, ...goals.map((g) => data.importance[g].share[a] ? mean(data.importance[g].share[a]) : 0));
  const knobs = Object.keys(table.knobs).filter((a) => new Set(table.knobs[a].at).size > 1);
  const most = new Set([...knobs].sort((a, b) => weight(b) - weight(a)).slice(0, Math.max(2, AXES - goals.length)));
  return [...goals, ...knobs.filter((a) => most.has(a))];
}
function axisOf(name) {
  if (name in table.values) {
    const values = table.values[name], s = scale(values, BOTTOM, TOP, 4);
    return { name, at: (i) => values[i] === null ? null : s.place(values[i]), ticks: s.ticks.map((v) => [s.place(v), brief(v)]), text: (y) => brief(s.back(y)) };
  }
  const { levels, at } = table.knobs[name], absent = at.some((v) => v < 0), count = levels.length + (absent ? 1 : 0);
  const place = (v) => count === 1 ? (TOP + BOTTOM) / 2 : BOTTOM - (v + (absent ? 1 : 0)) / (count - 1) * (BOTTOM - TOP);
  const every = Math.ceil(count / 14), named = [...(absent ? [[place(-1), "absent"]] : []), ...levels.map((t, v) => [place(v), t])];
  const text = (y) => named.reduce((best, n) => Math.abs(n[0] - y) < Math.abs(best[0] - y) ? n : best)[1];
  return { name, at: (i) => place(at[i]), ticks: named.filter((_, i) => i % every === 0), text, step: count > 1 ? (BOTTOM - TOP) / (count - 1) : null };
}
function drawLines() {
  const holder = document.getElementById("lines"), width = Math.max(holder.clientWidth || 900, axes.length * 96), made = axes.map(axisOf);
  const last = Math.max(55, 12 + 7 * Math.max(0, ...(made.at(-1)?.ticks ?? []).map(([, t]) => Math.min(12, t.length))));  // room for its texts
  const gap = (width - 55 - last) / Math.max(1, axes.length - 1);
  const root = svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "group", "aria-label": `Trials as lines across ${axes.length} axes` });
  root.style.minWidth = `${width}px`;
  const x = (k) => 55 + k * gap, group = svg("g", { "aria-hidden": "true" });
  const step = Math.max(1, Math.ceil((data.drawn - data.front.length) / LINES));
  const shown = table.numbers.map((_, i) => i).filter((i) => fronts.has(i) || i % step === 0).sort((a, b) => fronts.has(a) - fronts.has(b));
  lines = new Map(shown.map((i) => {
    const d = made.map((a, k) => [x(k), a.at(i)]).filter(([, y]) => y !== null).map(([px, y], k) => `${k ? "L" : "M"}${px.toFixed(1)} ${y.toFixed(1)}`).join("");
    return [i, svg("path", { class: `line${fronts.has(i) ? " front" : ""}`, d, "data-trial": i })];
  }));
  group.append(...lines.values());
  group.onclick = (e) => { if (e.target.dataset.trial) choose(Number(e.target.dataset.trial)); };
  group.onpointermove = (e) => tip(e, e.target.dataset.trial ? titleOf(Number(e.target.dataset.trial)) : "");
  group.onpointerleave = (e) => tip(e, "");
  root.append(group, ...made.map((a, k) => drawAxis(root, a, x(k), k)));
  holder.replaceChildren(root);
  axes.made = made;
  markLine();
  filter();
}
function drawAxis(root, a, x, k) {
  const title = svg("text", { class: "title", x: k ? x : 2, y: k % 2 ? 28 : 13, "text-anchor": !k ? "start" : k === axes.length - 1 ? "end" : "middle" }, a.name.length > 22 ? `…${a.name.slice(-21)}` : a.name, svg("title", {}, goalText(a.name)));
  const reach = svg("rect", { class: "reach", x: x - 16, y: TOP - 6, width: 32, height: BOTTOM - TOP + 12 }), band = svg("rect", { class: "brush", x: x - 8, width: 16 });
  const own = svg("g", { class: "axis", tabindex: "0", role: "slider", "aria-label": `${a.name}: keep a range`, "aria-orientation": "vertical", "data-axis": a.name, "aria-valuenow": "0" },
    svg("line", { x1: x, x2: x, y1: TOP, y2: BOTTOM }), title, ...a.ticks.map(([y, t]) => svg("text", { class: "tick halo", x: x + 5, y: y + 4 }, t.length > 12 ? `${t.slice(0, 11)}…` : t)), band, reach);
  const show = () => {
    const b = brushes.get(a.name);
    band.setAttribute("y", b ? b[0] : 0);
    band.setAttribute("height", b ? b[1] - b[0] : 0);
    own.setAttribute("aria-valuetext", b ? `${a.text(b[1])} to ${a.text(b[0])}` : "all");
  };
  const set = (from, to) => {
    const [p, q] = [Math.max(TOP - 5, Math.min(from, to)), Math.min(BOTTOM + 5, Math.max(from, to))];
    if (q - p < 3) brushes.delete(a.name); else brushes.set(a.name, [p, q]);
    show();
    filter();
  };
  const y = (e) => { const r = root.getBoundingClientRect(); return (e.clientY - r.top) * HEIGHT / r.height; };
  let start = null;
  reach.onpointerdown = (e) => { start = y(e); reach.setPointerCapture?.(e.pointerId); };
  reach.onpointermove = (e) => { if (start !== null) set(start, y(e)); };
  reach.onpointerup = (e) => { if (start !== null) set(start, y(e)); start = null; };
  own.onkeydown = (e) => {  // arrows move the upper end of the range, with Shift the lower one
    if (e.key === "Escape") { brushes.delete(a.name); show(); filter(); return; }
    const way = { ArrowUp: -1, ArrowDown: 1 }[e.key];
    if (!way) return;
    e.preventDefault();
    const [p, q] = brushes.get(a.name) ?? [TOP - 5, BOTTOM + 5], by = way * (a.step ?? (BOTTOM - TOP) / 20);
    set(e.shiftKey ? p : p + by, e.shiftKey ? q + by : q);
  };
  show();
  return own;
}
function filter() {
  const on = axes.made.filter((a) => brushes.has(a.name)), before = state.kept;
  state.kept = !on.length ? null : new Set(table.numbers.map((_, i) => i).filter((i) => on.every((a) => {
    const y = a.at(i), [p, q] = brushes.get(a.name);
    return y !== null && y >= p && y <= q;
  })));
  for (const [i, line] of lines) line.classList.toggle("off", !kept(i));
  const told = document.getElementById("brushed"), some = lines.size < data.drawn ? `; ${full(lines.size)} of them are lines` : "";
  const chips = make("span", { class: "chips" }, ...on.map((a) => make("button", { onclick: () => { brushes.delete(a.name); drawLines(); }, "aria-label": `all of ${a.name} again` },
    `${a.name} ${a.text(brushes.get(a.name)[1])} to ${a.text(brushes.get(a.name)[0])} ✕`)));
  if (state.kept === null) told.replaceChildren(`Drag along an axis to keep a range of it (keys: up and down, with Shift the lower end, Escape). ${full(data.drawn)} trials${some}, the front in colour.`);
  else told.replaceChildren(`${full(state.kept.size)} of ${full(data.drawn)} trials are in all ranges, ${data.front.filter((p) => kept(p.at)).length} of ${data.front.length} points of the front.`, chips);
  if (before !== state.kept) drawFront();
}
function markLine() {
  document.querySelector(".line.chosen")?.classList.remove("chosen");
  const line = lines.get(state.chosen);
  line?.classList.add("chosen");
  if (line) line.parentElement.append(line);  // in front of the others
}
function axisChoices() {
  const names = [...data.names, ...Object.keys(table.knobs)];
  document.getElementById("which").replaceChildren(...names.map((n) => {
    const box = make("input", { type: "checkbox", ...(axes.includes(n) ? { checked: "" } : {}) });
    box.onchange = () => {
      axes = names.filter((m) => m === n ? box.checked : axes.includes(m));
      brushes.delete(n);
      drawLines();
    };
    return make("label", {}, box, n);
  }));
}
