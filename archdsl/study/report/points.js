// ---------------------------------------------------------------- the front, and the trial that is chosen
let drawnText = "";
const state = { x: goals[0], y: goals[1] ?? "trial", chosen: null, kept: null, tab: "Knobs" };
const along = (name) => name === "trial" ? table.numbers : table.values[name];

function drawFront() {
  const holder = document.getElementById("scatter"), { x, y } = state, xs = along(x), ys = along(y);
  const own = (name) => data.default.values[name], extra = (name, values) => own(name) === undefined ? values : [...values, own(name)];
  const f = frame(holder, { name: goalText(x), values: extra(x, xs), linear: x === "trial" }, { name: goalText(y), values: extra(y, ys) }, 400, `${x} and ${y} of ${data.drawn} trials`);
  const at = (i) => [f.x(xs[i]), f.y(ys[i])], there = (i) => xs[i] !== null && ys[i] !== null;
  const dots = svg("g", { "aria-hidden": "true" });
  table.numbers.forEach((_, i) => {
    if (fronts.has(i) || !there(i)) return;
    const [cx, cy] = at(i);
    dots.append(svg("circle", { class: `dot${kept(i) ? "" : " off"}`, cx: cx.toFixed(1), cy: cy.toFixed(1), r: 2.2 }));
  });
  f.root.append(dots);
  if (goals.length === 2 && goals.includes(x) && goals.includes(y) && x !== y) f.root.append(svg("path", { class: "edge", d: edge(f, xs, ys) }));
  const shown = own(x) !== undefined && own(y) !== undefined;
  document.getElementById("drawn").textContent = drawnText + (shown ? ` The diamond is ${data.default.name} as the spec describes it.` : "");
  if (shown) {
    const [cx, cy] = [f.x(own(x)), f.y(own(y))];
    f.root.append(svg("path", { class: "origin", d: `M${cx} ${cy - 6}l6 6l-6 6l-6 -6z` }, svg("title", {}, `${data.default.name} as the spec describes it`)));
  }
  drawBest(f, at, there);
  if (state.chosen !== null && there(state.chosen)) {
    const [cx, cy] = at(state.chosen);
    f.root.append(svg("circle", { class: "ring", cx, cy, r: 9 }));
  }
  listen(f, at, there);
}
function edge(f, xs, ys) {  // the border of what the front dominates
  const sign = data.directions[state.y] === "min" ? 1 : -1;
  const points = data.front.map((p) => [xs[p.at], ys[p.at]]).sort((a, b) => a[0] - b[0] || sign * (b[1] - a[1]));
  return points.map(([x, y], i) => {
    if (!i) return `M${f.x(x)} ${f.y(y)}`;
    return data.directions[state.x] === "min" ? `H${f.x(x)}V${f.y(y)}` : `V${f.y(y)}H${f.x(x)}`;
  }).join("");
}
function drawBest(f, at, there) {  // one of them takes the Tab key, arrows go on to the others
  const group = svg("g", { role: "listbox", "aria-label": "Points of the front" });
  const order = data.front.map((_, i) => i).filter((i) => there(data.front[i].at)).sort((a, b) => at(data.front[a].at)[0] - at(data.front[b].at)[0]);
  const current = fronts.get(state.chosen) ?? order[0];
  for (const [place, i] of order.entries()) {
    const p = data.front[i], [cx, cy] = at(p.at);
    const mark = svg("circle", { class: `best${kept(p.at) ? "" : " off"}`, cx: cx.toFixed(1), cy: cy.toFixed(1), r: data.front.length > 60 ? 4 : 5.5, role: "option", "data-point": i,
      tabindex: i === current ? 0 : -1, "aria-selected": String(p.at === state.chosen), "aria-label": titleOf(p.at).replaceAll("\n", ", ") });
    mark.onkeydown = (e) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[e.key];
      const next = e.key === "Home" ? order[0] : e.key === "End" ? order.at(-1) : step && order[place + step];
      if (next === undefined && e.key !== "Enter" && e.key !== " ") return;
      e.preventDefault();
      choose(data.front[next ?? i].at);
      document.querySelector(`[data-point="${next ?? i}"]`).focus();
    };
    group.append(mark);
  }
  f.root.append(group);
}
function listen(f, at, there) {  // the nearest trial within reach, those of the front first
  const near = (e) => {
    const r = f.root.getBoundingClientRect(), k = f.width / r.width, x = (e.clientX - r.left) * k, y = (e.clientY - r.top) * k;
    let found = null, best = 14 ** 2;
    for (let i = 0; i < data.drawn; i++) {
      if (!there(i)) continue;
      const [a, b] = at(i), d = ((a - x) ** 2 + (b - y) ** 2) * (fronts.has(i) ? 0.5 : 1);
      if (d < best) [found, best] = [i, d];
    }
    return found;
  };
  f.root.onpointermove = (e) => { const i = near(e); tip(e, i === null ? "" : titleOf(i)); f.root.style.cursor = i === null ? "" : "pointer"; };
  f.root.onpointerleave = (e) => tip(e, "");
  f.root.onclick = (e) => { const i = near(e); if (i !== null) choose(i); };
}
const kept = (i) => state.kept === null || state.kept.has(i);

// ---------------------------------------------------------------- one trial
function choose(i) {
  state.chosen = i;
  drawFront();
  markLine();
  for (const row of document.querySelectorAll("#rows tbody tr")) row.classList.toggle("chosen", Number(row.dataset.at) === i);
  tellPoint();
}
const knobsOf = (i) => Object.entries(table.knobs).filter(([, k]) => k.at[i] >= 0).map(([a, k]) => [a, k.levels[k.at[i]]]);
const asText = (v) => Array.isArray(v) ? `[${v.map(asText).join(",")}]` : v === null ? "none" : String(v);
function tellPoint() {
  const i = state.chosen, p = fronts.has(i) ? data.front[fronts.get(i)] : null, holder = document.getElementById("point");
  if (i === null) {
    holder.replaceChildren(make("p", { class: "soft" }, data.drawn ? "Click a point to see what it is." : "No trial has succeeded."));
    return;
  }
  const values = make("table", { class: "values" }, make("thead", {}, headRow(["", p ? p.name : `trial ${table.numbers[i]}`, data.default.name, ""])), make("tbody", {}, ...data.names.map((n) => valueRow(n, i))));
  const told = [make("h3", {}, p ? `${p.name}: trial ${p.trial}` : `Trial ${table.numbers[i]}, not on the front`), make("div", { class: "wide" }, values)];
  const tabs = { Knobs: () => knobTable(i) };
  if (p?.variant) tabs.Variant = () => variantText(p);
  if (p?.root) tabs.Picture = () => pictureOf(p);
  if (p?.difference) tabs.Difference = () => { const d = make("div", { class: "difference" }); d.innerHTML = p.difference; return d; };
  told.push(...tabbed(tabs));
  if (p?.why) told.push(make("p", { class: "soft" }, `It has no picture here: ${p.why}.`));
  if (p && !p.variant) told.push(make("p", { class: "soft" }, `The page has room for the pictures of ${data.front.filter((q) => q.root).length} points. For this one: `, make("code", {}, `archdsl graph ${data.folder}/front.arch:${p.name} -o ${p.name}.html`)));
  holder.replaceChildren(...told);
  startPicture?.();
}
const headRow = (names) => make("tr", {}, ...names.map((n, i) => make("th", { scope: "col", class: i ? "number" : "" }, n)));
function valueRow(name, i) {
  const value = table.values[name][i], own = data.default.values[name], share = own && value !== null ? (value - own) / Math.abs(own) * 100 : null;
  return make("tr", {}, make("th", { scope: "row" }, name), make("td", { class: "number" }, tidy(value)), make("td", { class: "number was" }, own === undefined ? "" : tidy(own)),
    make("td", { class: "number was" }, share === null || Math.abs(share) < 0.05 ? "" : `${share > 0 ? "+" : "−"}${Math.abs(share).toPrecision(3)} %`));
}
function knobTable(i) {
  const rows = knobsOf(i).map(([a, text]) => {
    const own = a in data.default.knobs ? asText(data.default.knobs[a]) : null, other = own !== text;
    return make("tr", other ? { class: "changed" } : {}, make("td", {}, address(a)), make("td", {}, text), make("td", { class: "was" }, other ? own === null ? "not in the default" : `default ${own}` : ""));
  });
  return make("div", { class: "wide" }, make("table", { class: "knobs" }, ...rows));
}
function variantText(p) {
  const copy = make("button", {}, "Copy");
  copy.onclick = async () => { await navigator.clipboard.writeText(p.variant); copy.textContent = "Copied"; };
  return make("div", {}, make("pre", { tabindex: "0" }, p.variant), ...(navigator.clipboard ? [copy] : []));
}
let startPicture = null;
function pictureOf(p) {
  const body = make("div", { class: "drawing" }), drawing = picture({ root: p.root, opened: p.opened, definitions: data.definitions }, body);
  startPicture = drawing.draw;  // it is measured as it is drawn: when it is in the page
  return body;
}
function tabbed(tabs) {
  if (!(state.tab in tabs)) state.tab = "Knobs";
  const panel = make("div", { role: "tabpanel" }), bar = make("div", { class: "tabs", role: "tablist" });
  const open = (name) => {
    state.tab = name;
    for (const b of bar.children) { b.setAttribute("aria-selected", String(b.textContent === name)); b.tabIndex = b.textContent === name ? 0 : -1; }
    startPicture = null;
    panel.setAttribute("aria-label", name);
    panel.replaceChildren(tabs[name]());
    if (panel.isConnected) startPicture?.();
  };
  const names = Object.keys(tabs);
  bar.append(...names.map((n) => make("button", { role: "tab", onclick: () => open(n) }, n)));
  bar.onkeydown = (e) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[e.key];
    if (!step) return;
    const next = names[(names.indexOf(state.tab) + step + names.length) % names.length];
    open(next);
    bar.children[names.indexOf(next)].focus();
  };
  open(state.tab);
  return [bar, panel];
}
function frontTable() {
  document.querySelector("#rows summary").textContent = `The ${data.front.length} ${data.front.length === 1 ? "point" : "points"} of the front as a table`;
  const changing = Object.keys(table.knobs).filter((a) => new Set(data.front.map((p) => table.knobs[a].at[p.at])).size > 1);
  const rows = data.front.map((p) => {
    const row = make("tr", { tabindex: "0", "data-at": p.at, onclick: () => choose(p.at), onkeydown: (e) => { if (e.key === "Enter") choose(p.at); } }, make("td", {}, p.name),
      make("td", { class: "number" }, full(p.trial)), ...data.names.map((n) => make("td", { class: "number" }, tidy(table.values[n][p.at]))));
    const shown = changing.slice(0, 8).map((a) => [a, table.knobs[a].levels[table.knobs[a].at[p.at]]]).filter(([, v]) => v !== undefined);
    row.append(make("td", {}, make("code", {}, shown.map(([a, v]) => `${a}=${v}`).join(" ") + (changing.length > 8 ? " …" : ""))));
    return row;
  });
  document.querySelector("#rows table").replaceChildren(make("thead", {}, make("tr", {}, ...["variant", "trial", ...data.names, "where they differ"].map((n, i) => make("th", { scope: "col", class: i && i <= data.names.length + 1 ? "number" : "" }, n)))), make("tbody", {}, ...rows));
}
