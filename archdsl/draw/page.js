// ---------------------------------------------------------------- the page of one model
const data = JSON.parse(document.getElementById("data").textContent);
const model = picture(data, document.getElementById("picture"), tell), { walk, show } = model;

// ---------------------------------------------------------------- details
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

// ---------------------------------------------------------------- search, heat
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
function start() {
  const root = data.root, sizes = Object.entries(data.sizes).map(([k, v]) => `${k}=${v}`).join(", ");
  document.getElementById("name").textContent = data.name;
  document.getElementById("totals").textContent = `${short(root.params ?? 0)} parameters, ${short(root.macs ?? 0)} MACs, ${short(root.saved_bytes ?? 0, "B")} activations`
    + `, ${short(root.state_bytes ?? 0, "B")} state at ${sizes || "its only size"}, ${data.dtype}`;
  const select = document.getElementById("heat");
  for (const [name, title] of Object.entries(HEATS)) if (name !== "bytes") select.append(make("option", { value: name }, title + (root[name] ? "" : " (none)")));
  select.onchange = () => model.heatBy(select.value);
  document.getElementById("search").oninput = (e) => search(e.target.value);
  document.getElementById("search").onkeydown = (e) => {
    if (e.key === "Escape") document.getElementById("hits").hidden = true;
    if (e.key === "Enter") document.querySelector("#hits button")?.click();
  };
  document.getElementById("less").onclick = model.less;
  document.getElementById("more").onclick = model.more;
  startTheme();
  addEventListener("resize", model.draw);
  model.draw();
  tell(root, "", 1);
}
start();
