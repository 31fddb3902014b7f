// ---------------------------------------------------------------- knobs that matter
function shares(goal) {
  const found = data.importance[goal], holder = document.getElementById("shares"), told = document.getElementById("explained");
  const names = Object.keys(found.share);
  holder.className = "share";
  if (!names.length) {
    told.textContent = `Not known: ${found.why}.`;
    holder.replaceChildren();
    return;
  }
  const r2 = mean(found.explained), all = mean(names.reduce((sum, a) => sum.map((s, k) => s + found.share[a][k]), found.explained.map(() => 0)));
  told.textContent = `How much of the variance of ${goal} each knob explains alone, in ${found.explained.length} random forests (fANOVA) over ${full(found.trials)} trials; the marks show the least and the most of them. `
    + `Together ${(100 * all).toFixed(0)} %, the rest are interactions. On trials that they have not seen the forests explain ${(100 * r2).toFixed(0)} %.` + (found.why ? ` Beware: ${found.why}.` : "");
  const groups = new Map();
  for (const a of names) { const key = a.replace(/\.\d+(?=\.|$)/g, ".*"); groups.set(key, [...groups.get(key) ?? [], a]); }
  const sum = (parts) => found.explained.map((_, k) => parts.reduce((s, a) => s + found.share[a][k], 0));
  const rows = [...groups].map(([name, parts]) => ({ name, parts, by: sum(parts) })).sort((a, b) => mean(b.by) - mean(a.by));
  const widest = Math.max(0.01, ...rows.map((r) => Math.max(...r.by)));
  const body = make("tbody"), rest = rows.length - 20;
  for (const r of rows.slice(0, 20)) body.append(...shareRows(r, found, widest));
  if (rest > 0) body.append(make("tr", {}, make("td", { class: "soft", colspan: "3" }, `${rest} more, each below ${mean(rows[19].by).toFixed(3)}`)));
  holder.replaceChildren(make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "knob"), make("th", { scope: "col" }, "share"), make("th", { scope: "col", class: "number" }, "mean", make("span", {}, ", least to most")))), body);
}
function shareRows(r, found, widest) {  // a row; the layers of a loop are one, which opens
  const row = (name, by, kind) => {
    const low = Math.min(...by), high = Math.max(...by), bar = make("div", { class: "bar" }, make("i"), make("b"));
    bar.children[0].style.width = `${100 * mean(by) / widest}%`;
    Object.assign(bar.children[1].style, { left: `${100 * low / widest}%`, width: `${100 * (high - low) / widest}%` });
    return make("tr", { class: kind }, make("td", {}, address(name)), make("td", {}, bar), make("td", { class: "number" }, mean(by).toFixed(3), make("span", { class: "soft" }, `, ${low.toFixed(3)} to ${high.toFixed(3)}`)));
  };
  if (r.parts.length === 1) return [row(r.parts[0], r.by, "")];
  const whole = row(`${r.name} (${r.parts.length})`, r.by, ""), parts = r.parts.map((a) => row(a, found.share[a], "part")), turn = make("button", { "aria-expanded": "false", "aria-label": `each of ${r.name}` }, "▸");
  for (const p of parts) p.hidden = true;
  turn.onclick = () => {
    const open = turn.getAttribute("aria-expanded") !== "true";
    turn.setAttribute("aria-expanded", String(open));
    turn.textContent = open ? "▾" : "▸";
    for (const p of parts) p.hidden = !open;
  };
  whole.firstChild.prepend(turn);
  return [whole, ...parts];
}

// ---------------------------------------------------------------- how it grew, what failed, how it was searched
function course() {
  const one = goals.length === 1, title = one ? `Best ${goals[0]} over trials` : "Hypervolume over trials";
  document.getElementById("course-title").textContent = title;
  const told = document.getElementById("grown");
  if (data.course.length < 2) {
    told.textContent = data.drawn < 2 ? "There are too few trials." : "Not known: it needs moocore (pip install 'archdsl[search]') and objectives that differ between trials.";
    return;
  }
  const f = frame(document.getElementById("growth"), { name: "trials", values: [0, ...data.course.map((p) => p[0])], linear: true }, { name: one ? goalText(goals[0]) : "hypervolume", values: data.course.map((p) => p[1]) }, 300, title);
  f.root.append(svg("path", { class: "edge", d: data.course.map(([n, v], i) => i ? `H${f.x(n).toFixed(1)}V${f.y(v).toFixed(1)}` : `M${f.x(n)} ${f.y(v)}`).join("") }));
  const last = data.course.at(-1)[1], when = data.course.find((p) => Math.abs(p[1] - last) <= 0.01 * Math.abs(last))[0];
  told.textContent = (one ? `The best is ${tidy(last)}; ` : `The share of the box between the best and the worst values seen that the front dominates: ${tidy(last)} at the end; `)
    + `within 1 % of it after ${full(when)} of ${full(data.course.at(-1)[0])} trials.`;
}
function failures() {
  const holder = document.getElementById("kinds");
  if (!data.failures.length) {
    holder.replaceChildren(make("p", {}, `None of ${full(data.trials)} trials failed.`));
    return;
  }
  const rows = data.failures.map((k) => make("tr", {}, make("td", {}, k.kind), make("td", { class: "number" }, full(k.trials)), make("td", { class: "number" }, `${(100 * k.trials / data.trials).toPrecision(2)} %`),
    make("td", { class: "number" }, full(k.first)), make("td", {}, ...k.examples.map((r) => make("div", {}, make("code", {}, r))))));
  holder.replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...["kind", "trials", "of all", "first trial", "reasons"].map((n, i) => make("th", { scope: "col", class: i && i < 4 ? "number" : "" }, n)))), make("tbody", {}, ...rows)));
}
function facts() {
  const last = data.ran.at(-1) ?? {}, rows = [["spec", `${data.spec}, model ${data.model}${data.variant ? `, variant ${data.variant}` : ""}`], ["objectives", data.objectives.join(", ")], ["limits", data.limits.join(", ")],
    ["strategy", data.strategy], ["evaluator", data.evaluator], ["seed", String(data.seed)], ["trials", `${full(data.trials)} of ${full(data.budget)}, ${data.failed ? full(data.failed) : "none"} failed`
      + (data.waiting ? `, ${full(data.waiting)} not finished` : "") + (data.low ? `, ${full(data.low)} at a lower fidelity, which are not drawn` : "")],
    ["runs", data.ran.length > 1 ? `${data.ran.length}, resumed ${data.ran.length - 1} times` : "1"], ["versions", `archdsl ${data.archdsl}${last.python ? `, Python ${last.python}` : ""}`]];
  document.getElementById("facts").replaceChildren(...rows.filter(([, v]) => v).map(([k, v]) => make("tr", {}, make("th", { scope: "row" }, k), make("td", {}, v))));
}

// ---------------------------------------------------------------- all of it
function start() {
  document.getElementById("name").textContent = `${data.spec.split("/").pop()}: ${data.model}${data.variant ? `.${data.variant}` : ""}`;
  const volume = data.hypervolume === null ? "" : `, hypervolume ${tidy(data.hypervolume)}`;
  document.getElementById("totals").textContent = `${full(data.trials)} trials, ${data.failed ? full(data.failed) : "none"} failed; front of ${data.front.length} ${data.front.length === 1 ? "point" : "points"} for ${data.objectives.join(", ")}${volume}`;
  drawnText = (data.drawn < data.whole ? `${full(data.drawn)} of ${full(data.whole)} trials are drawn: the front, and others evenly spaced. ` : "")
    + (data.drawn ? "Click a point, or go along the front, which is orange, with the arrow keys." : "");
  if (data.names.length > 2 || goals.length === 1) {
    const names = [...data.names, "trial"], holder = document.getElementById("axes");
    choice(holder, "Across", names, state.x, (n) => { state.x = n; drawFront(); });
    choice(holder, "Up", names, state.y, (n) => { state.y = n; drawFront(); });
  }
  if (goals.length > 1) choice(document.getElementById("goal"), "Objective", goals, goals[0], shares);
  startTheme();
  axes = firstAxes();
  frontTable();
  axisChoices();
  drawLines();
  drawFront();
  shares(goals[0]);
  course();
  failures();
  facts();
  if (data.front.length) choose(data.front[data.opening].at); else tellPoint();
  addEventListener("resize", () => { drawFront(); drawLines(); course(); tellPoint(); });
}
start();
