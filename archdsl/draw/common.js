"use strict";
// ---------------------------------------------------------------- numbers, elements, light and dark: what pages have in common
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
function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  document.getElementById("theme").textContent = theme === "dark" ? "Light" : "Dark";
}
function startTheme() {
  document.getElementById("theme").onclick = () => setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
}
