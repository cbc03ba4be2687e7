"use strict";

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const one = (selector, root = document) => root.querySelector(selector);
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

const seen = (element) => element.getClientRects().length > 0;

// Figures: the radio buttons choose which variant is seen.
const choose = (figure) => {
  const wanted = JSON.stringify(all("input:checked", figure).map((input) => input.value));
  let found = false;
  for (const panels of all("[data-choice]", figure)) {
    panels.hidden = JSON.stringify(JSON.parse(panels.dataset.choice)) !== wanted;
    found ||= !panels.hidden;
  }
  one(".none", figure).hidden = found;
};

// Figures: a legend entry under the pointer, in focus or pressed fades the other series.
const fade = (figure, css) => {
  const wanted = css && css.split(" ").filter((name) => name !== "mark");
  for (const mark of all(".series", figure)) {
    mark.classList.toggle("dim", Boolean(wanted) && !wanted.every((name) => mark.classList.contains(name)));
  }
};
const followLegend = (figure) => {
  const buttons = all(".keys button", figure);
  const pressed = () => buttons.find((button) => button.ariaPressed === "true")?.dataset.css;
  for (const button of buttons) {
    button.addEventListener("pointerenter", () => fade(figure, button.dataset.css));
    button.addEventListener("focus", () => fade(figure, button.dataset.css));
    button.addEventListener("pointerleave", () => fade(figure, pressed()));
    button.addEventListener("blur", () => fade(figure, pressed()));
    button.addEventListener("click", () => {
      const press = button.ariaPressed !== "true";
      for (const other of buttons) other.ariaPressed = String(press && other === button);
      fade(figure, pressed());
    });
  }
};

// Figures: what is seen, as one SVG file: panels three abreast below title and legend.
const svgOf = (figure) => {
  const name = "http://www.w3.org/2000/svg";
  const draw = (tag, attributes, text) => {
    const element = document.createElementNS(name, tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const panels = all(".panel", figure).filter(seen);
  const sizes = panels.map((panel) => panel.viewBox.baseVal);
  const columns = Math.min(3, panels.length);
  const across = Math.max(...sizes.map((size) => size.width)) + 18;
  const down = Math.max(...sizes.map((size) => size.height)) + 18;
  const width = 32 + columns * across - 18;
  const sheet = draw("svg", { xmlns: name, width });
  sheet.append(draw("style", {}, JSON.parse(one("#figure-style").textContent)));
  sheet.append(draw("rect", { class: "ground", width: "100%", height: "100%" }));
  sheet.append(draw("text", { class: "headline", x: 16, y: 26 }, figure.dataset.title));
  let [x, y] = [16, 38];
  for (const button of all(".keys button", figure).filter(seen)) {
    const text = button.textContent.trim();
    const length = 40 + 7 * text.length;
    if (x > 16 && x + length > width - 16) [x, y] = [16, y + 20];
    const group = draw("g", { transform: `translate(${x} ${y})` });
    group.append(one("path", button).cloneNode(), draw("text", { class: "key", x: 24, y: 11 }, text));
    sheet.append(group);
    x += length;
  }
  panels.forEach((panel, index) => {
    const copy = panel.cloneNode(true);
    const place = { x: 16 + (index % columns) * across, y: y + 32 + Math.floor(index / columns) * down };
    const size = { width: sizes[index].width, height: sizes[index].height };
    for (const [key, value] of Object.entries({ ...place, ...size })) copy.setAttribute(key, value);
    sheet.append(copy);
  });
  const height = y + 30 + Math.ceil(panels.length / columns) * down;
  sheet.setAttribute("height", height);
  sheet.setAttribute("viewBox", `0 0 ${width} ${height}`);
  return new XMLSerializer().serializeToString(sheet);
};
const save = (figure) => {
  const url = URL.createObjectURL(new Blob([svgOf(figure)], { type: "image/svg+xml" }));
  make("a", { href: url, download: `${figure.dataset.name}.svg` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
};

for (const figure of all("figure.figure")) {
  for (const input of all("input", figure)) input.addEventListener("change", () => choose(figure));
  followLegend(figure);
  one(".save", figure).addEventListener("click", () => save(figure));
}

// Galleries: one stop for the tab key each; the arrow keys go from image to image.
for (const wall of all(".wall")) {
  const figures = all("figure", wall);
  const stop = (figure) => figures.forEach((other) => (other.tabIndex = other === figure ? 0 : -1));
  stop(figures[0]);
  wall.addEventListener("focusin", ({ target }) => figures.includes(target) && stop(target));
  wall.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const next = step && figures[figures.indexOf(event.target) + step];
    if (!next || event.target.tagName !== "FIGURE") return;
    event.preventDefault();
    next.focus();
  });
}

// Paper shows what is folded away on the screen.
addEventListener("beforeprint", () => all("details").forEach((details) => (details.open = true)));

// The table of all cells: sorted, filtered and shown a page at a time. Text only, never markup.
const { columns, rows } = JSON.parse(one("#cells-data").textContent);
const PAGE = 50;
const state = { column: -1, descending: false, shown: PAGE, filters: new Map() };

const numberText = (value) => {
  const size = Math.abs(value);
  return (size === 0 || (size >= 1e-3 && size < 1e5) ? String(Number(value.toPrecision(3))) : value.toExponential(2)).replace("-", "−");
};
const pointText = (value) => (100 * value).toFixed(1).replace(/^-(0\.0)$/, "$1").replace("-", "−");
const valueText = (value, kind) => (kind === "number" ? numberText(value) : pointText(value));
const factText = (value, name) => {
  if (value === null) return "–";
  if (name === "shots") return value > 0 ? String(value) : "all";
  return typeof value === "number" ? String(Number(value.toFixed(1))) : name === "strategy" ? value.replaceAll("_", " ") : value;
};
const cellOf = (value, column) => {
  if (column.kind === "key" || column.kind === "fact") {
    return make("td", { className: typeof value === "string" ? "key" : "" }, factText(value, column.name));
  }
  if (value === null) return make("td", {}, "–");
  const [middle, low, high] = value.map((end) => valueText(end, column.kind));
  return low === undefined ? make("td", {}, middle) : make("td", {}, middle, make("small", {}, `${low}${column.kind === "difference" ? " to " : "–"}${high}`));
};
const keyOf = (row, place) => (Array.isArray(row[place]) ? row[place][0] : row[place]);
const before = (a, b) => (typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b);

const chosen = () => {
  const words = one("#find").value.toLowerCase().split(/\s+/).filter(Boolean);
  const keys = columns.flatMap((column, place) => (column.kind === "key" ? [place] : []));
  const kept = rows.filter((row) => {
    for (const [place, wanted] of state.filters) if (row[place] !== wanted) return false;
    const text = keys.map((place) => factText(row[place], columns[place].name)).join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  });
  if (state.column < 0) return kept;
  const place = state.column;
  const known = kept.filter((row) => keyOf(row, place) !== null);
  known.sort((a, b) => (state.descending ? -1 : 1) * before(keyOf(a, place), keyOf(b, place)));
  return known.concat(kept.filter((row) => keyOf(row, place) === null));
};
const show = () => {
  const kept = chosen();
  const page = kept.slice(0, state.shown);
  const lines = page.map((row) => make("tr", {}, ...row.map((value, place) => cellOf(value, columns[place]))));
  one("#cells-table tbody").replaceChildren(...lines);
  one("#count").textContent = `${page.length} of ${kept.length} cells shown` + (kept.length < rows.length ? `, ${rows.length} in all.` : ".");
  one("#more").hidden = page.length === kept.length;
};
const refilter = () => {
  state.shown = PAGE;
  show();
};
const sortBy = (place) => {
  state.descending = state.column === place ? !state.descending : columns[place].kind !== "key";
  state.column = place;
  all("#cells-table thead th").forEach((head, index) => {
    head.ariaSort = index === place ? (state.descending ? "descending" : "ascending") : null;
  });
  show();
};

columns.forEach((column, place) => {
  const button = make("button", { type: "button", onclick: () => sortBy(place) }, column.label);
  const words = rows.some((row) => typeof row[place] === "string");
  one("#cells-table thead tr").append(make("th", { scope: "col", className: words ? "key" : "" }, button));
  const values = [...new Set(rows.map((row) => row[place]))];
  if (column.kind !== "key" || values.length < 2) return;
  values.sort(before);
  const options = values.map((value) => new Option(factText(value, column.name) || "none"));
  const select = make("select", { name: column.name }, new Option("all"), ...options);
  select.addEventListener("change", () => {
    if (select.selectedIndex === 0) state.filters.delete(place);
    else state.filters.set(place, values[select.selectedIndex - 1]);
    refilter();
  });
  one(".filters").append(make("label", {}, column.label, select));
});
one("#find").addEventListener("input", refilter);
one(".filters").addEventListener("submit", (event) => event.preventDefault());
one("#more").addEventListener("click", () => {
  state.shown += 4 * PAGE;
  show();
});
show();
