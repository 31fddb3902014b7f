// ---------------------------------------------------------------- scales, axes and tips of charts
const data = JSON.parse(document.getElementById("data").textContent);
const goals = Object.keys(data.directions), table = data.table, fronts = new Map(data.front.map((p, i) => [p.at, i]));
const tidy = (v) => v === null || v === undefined ? "none" : Number.isInteger(v) ? full(v) : String(Number(v.toPrecision(5)));
const brief = (v) => Math.abs(v) >= 1000 ? short(v) : String(Number(v.toPrecision(4)));

const SVG = "http://www.w3.org/2000/svg";
function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
// From values to places between `from` and `to`, and the ticks: logarithmic where values above 0 span more than two decades.
function scale(values, from, to, wanted = 5, linear = false) {
  const known = values.filter((v) => v !== null && v !== undefined);
  let low = Infinity, high = -Infinity;
  for (const v of known) { low = Math.min(low, v); high = Math.max(high, v); }
  if (!known.length) [low, high] = [0, 1];
  const log = !linear && low > 0 && high / low > 100, f = log ? Math.log10 : (v) => v;
  let a = f(low), b = f(high);
  if (a === b) [a, b] = [a - (Math.abs(a) || 1) / 2, b + (Math.abs(b) || 1) / 2];
  const room = (b - a) * 0.04;
  [a, b] = [a - room, b + room];
  const place = (v) => from + (f(v) - a) / (b - a) * (to - from), back = (y) => { const v = a + (y - from) / (to - from) * (b - a); return log ? 10 ** v : v; };
  return { place, back, ticks: ticks(a, b, log, wanted), low, high };
}
function ticks(a, b, log, wanted) {
  const found = [];
  if (log) {
    const every = Math.ceil((b - a) / wanted);
    for (let k = Math.ceil(a); k <= b; k += every) for (const m of every > 1 || b - a > 3 ? [1] : [1, 2, 5]) if (k + Math.log10(m) <= b) found.push(m * 10 ** k);
    return found;
  }
  const raw = (b - a) / wanted, unit = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 5, 10].map((k) => k * unit).find((s) => s >= raw);
  for (let k = Math.ceil(a / step); k * step <= b; k++) found.push(k * step);
  return found;
}
// A frame with axes; `width` is that of the place it goes to, so that letters keep their size.
function frame(holder, x, y, height, label) {
  const width = Math.max(280, holder.clientWidth || 600), box = { left: 62, right: width - 14, top: 26, bottom: height - 44 };
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label });
  const across = scale(x.values, box.left, box.right, Math.max(2, Math.min(6, width / 90)), x.linear), up = scale(y.values, box.bottom, box.top);
  for (const v of across.ticks) {
    const at = across.place(v);
    root.append(svg("line", { class: "grid", x1: at, x2: at, y1: box.top, y2: box.bottom }), svg("text", { class: "tick", x: at, y: box.bottom + 17, "text-anchor": "middle" }, brief(v)));
  }
  for (const v of up.ticks) {
    const at = up.place(v);
    root.append(svg("line", { class: "grid", x1: box.left, x2: box.right, y1: at, y2: at }), svg("text", { class: "tick", x: box.left - 6, y: at + 4, "text-anchor": "end" }, brief(v)));
  }
  root.append(svg("text", { x: (box.left + box.right) / 2, y: box.bottom + 37, "text-anchor": "middle" }, x.name), svg("text", { x: 4, y: 13 }, y.name));
  holder.replaceChildren(root);
  return { root, x: across.place, y: up.place, box, width };
}
function tip(event, text) {
  const box = document.getElementById("tip");
  box.hidden = !text;
  if (!text) return;
  box.textContent = text;
  const right = event.pageX + 14 + box.offsetWidth > scrollX + innerWidth;
  box.style.left = `${right ? Math.max(scrollX, event.pageX - 14 - box.offsetWidth) : event.pageX + 14}px`;
  box.style.top = `${event.pageY + 14}px`;
}
const goalText = (name) => name in data.directions ? `${name} (${data.directions[name] === "min" ? "less" : "more"} is better)` : name;
const titleOf = (i) => `${fronts.has(i) ? `${data.front[fronts.get(i)].name}, ` : ""}trial ${table.numbers[i]}\n`
  + data.names.map((n) => `${n} ${tidy(table.values[n][i])}`).join("\n");
const address = (name) => make("code", {}, ...name.split(".").flatMap((part, i) => i ? [make("wbr"), `.${part}`] : [part]));  // breaks between parts
function choice(holder, label, names, chosen, changed) {
  const select = make("select", {}, ...names.map((n) => make("option", { value: n, ...(n === chosen ? { selected: "" } : {}) }, n)));
  select.onchange = () => changed(select.value);
  holder.append(make("label", {}, `${label} `, select));
  return select;
}
