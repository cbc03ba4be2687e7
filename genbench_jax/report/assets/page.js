"use strict";

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const one = (selector, root = document) => root.querySelector(selector);
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

const seen = (element) => element.getClientRects().length > 0;

// Figures: the radio buttons select the visible variant.
const choose = (figure) => {
  const wanted = JSON.stringify(all("input:checked", figure).map((input) => input.value));
  let found = false;
  for (const panels of all("[data-choice]", figure)) {
    panels.hidden = JSON.stringify(JSON.parse(panels.dataset.choice)) !== wanted;
    found ||= !panels.hidden;
  }
  one(".none", figure).hidden = found;
};

// Figures: hovering over, focusing or pressing a legend entry fades the other series.
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

// Downloads.
const download = (blob, name) => {
  const url = URL.createObjectURL(blob);
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
};
// Spreadsheets read the ASCII minus, and would run other text that begins with a sign as a formula: an apostrophe, as in the files of a run.
const signed = /^[+-][\d.,]+( \([-+\d., a-z]*\)| better| worse| =)?$/;
const csvCell = (value) => {
  const text = String(value ?? "").replaceAll("−", "-");
  const safe = /^[=+\-@\t\r\n]/.test(text) && !signed.test(text) && !Number.isFinite(Number(text)) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
};
const csvOf = (lines) => lines.map((line) => line.map(csvCell).join(",")).join("\n") + "\n";
const saveTable = (lines, name) => download(new Blob(["\ufeff", csvOf(lines)], { type: "text/csv" }), `${name}.csv`);

// Figures: export the visible variant as one SVG file, three panels per row below title and legend.
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
const save = (figure) => download(new Blob([svgOf(figure)], { type: "image/svg+xml" }), `${figure.dataset.name}.svg`);
const savePng = (figure) => {
  const picture = new Image();
  picture.addEventListener("load", () => {
    const canvas = make("canvas", { width: 2 * picture.naturalWidth, height: 2 * picture.naturalHeight });
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => download(blob, `${figure.dataset.name}.png`));
  });
  picture.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svgOf(figure))}`;
};

// One dialog enlarges the clicked image, with its caption, or panel to the size of the window.
const dialog = one("#large");
let steps = null;
const enlarge = (content, step) => {
  one(".content", dialog).replaceChildren(...content);
  for (const button of all(".step", dialog)) button.hidden = !step;
  steps = step;
  if (!dialog.open) dialog.showModal();
};
const enlargePanel = (panel) => {
  const copy = panel.cloneNode(true);
  const title = one("title", copy);
  copy.setAttribute("aria-label", title ? title.textContent : "");
  copy.removeAttribute("aria-labelledby");
  for (const element of [copy, ...all("[id]", copy)]) element.removeAttribute("id");
  enlarge([copy], null);
};
const enlargePicture = (figure) => {
  const wall = figure.closest(".wall");
  const picture = one("img", figure);
  const large = make("img", { src: picture.src, alt: picture.alt, className: picture.naturalWidth <= 64 ? "tiny" : "" });
  const others = all("figure", wall).filter(seen);
  const go = (by) => {
    const next = others[others.indexOf(figure) + by];
    if (!next) return;
    next.focus();
    enlargePicture(next);
  };
  enlarge([large, make("div", { className: "words" }, ...one("figcaption", figure).cloneNode(true).childNodes)], go);
};
dialog.addEventListener("click", ({ target }) => {
  if (target === dialog || target.closest(".close")) dialog.close();
  else if (target.closest(".step")) steps(Number(target.closest(".step").value));
});
dialog.addEventListener("keydown", ({ key }) => {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[key];
  if (by && steps) steps(by);
});

// Each gallery and row of panels is one tab stop. Arrow keys move inside; a click or Enter enlarges.
const rove = (root, items, act) => {
  const stop = (item) => items.forEach((other) => other.setAttribute("tabindex", other === item ? 0 : -1));
  stop(items[0]);
  root.addEventListener("focusin", ({ target }) => items.includes(target) && stop(target));
  root.addEventListener("click", ({ target }) => {
    const item = items.find((other) => other.contains(target));
    if (item) act(item);
  });
  root.addEventListener("keydown", (event) => {
    if (!items.includes(event.target)) return;
    if (event.key === "Enter") act(event.target);
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const shown = items.filter(seen);
    const next = by && shown[shown.indexOf(event.target) + by];
    if (!next) return;
    event.preventDefault();
    next.focus();
  });
};

for (const figure of all("figure.figure")) {
  for (const input of all("input", figure)) input.addEventListener("change", () => choose(figure));
  followLegend(figure);
  one(".save", figure).addEventListener("click", () => save(figure));
  one(".save-png", figure).addEventListener("click", () => savePng(figure));
  for (const panels of all(".medium-panels .panels, .small-panels .panels", figure)) rove(panels, all(".panel", panels), enlargePanel);
}

for (const wall of all(".wall")) rove(wall, all("figure", wall), enlargePicture);

// Galleries: show all images, correctly or wrongly classified ones, by index or worst first.
const judged = one("#judged");
const judge = () => {
  const wanted = one("input[name=judged]:checked", judged).value;
  const worst = one("input[name=order]:checked", judged).value === "worst";
  for (const pictures of all(".pictures")) {
    const figures = all("figure", pictures);
    for (const figure of figures) figure.hidden = wanted !== "all" && figure.dataset.right !== wanted;
    const key = (figure) => Number(worst ? figure.dataset.margin ?? 9 : figure.dataset.place);
    figures.sort((a, b) => key(a) - key(b));
    pictures.append(...figures);
  }
  for (const row of all(".wall tbody tr")) row.hidden = !all("figure", row).some((figure) => !figure.hidden);
};
if (judged) for (const input of all("input", judged)) input.addEventListener("change", judge);

// Small tables: headings sort, a button saves.
const plainText = (cell) => cell.textContent.trim();
const sizeOf = (text) => {
  const found = text.replaceAll("−", "-").replaceAll(",", "").match(/^[+-]?\d+(\.\d+)?/);
  return found ? Number(found[0]) : null;
};
for (const table of all("table.sortable")) {
  all("thead th", table).forEach((head, place) => {
    const button = make("button", { type: "button" }, ...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.ariaSort !== "descending";
      for (const other of all("thead th", table)) other.ariaSort = null;
      head.ariaSort = down ? "descending" : "ascending";
      const lines = all("tbody tr", table).map((line) => [line, plainText(line.children[place])]);
      const known = lines.filter(([, text]) => text && text !== "–");
      const numbers = known.every(([, text]) => sizeOf(text) !== null);
      known.sort(([, a], [, b]) => (down ? -1 : 1) * (numbers ? sizeOf(a) - sizeOf(b) : a.localeCompare(b, undefined, { numeric: true })));
      const absent = lines.filter(([, text]) => !text || text === "–");
      one("tbody", table).append(...[...known, ...absent].map(([line]) => line));
    });
  });
}
for (const table of all("table.plain[data-name]")) {
  const button = make("button", { type: "button", className: "save" }, "Save as CSV");
  button.addEventListener("click", () => saveTable(all("tr", table).map((line) => [...line.children].map(plainText)), table.dataset.name));
  table.parentElement.after(make("p", { className: "keep" }, button));
}

// Large tables: sorted, filtered and shown in pages. Values are text, never markup.
const PAGE = 50;
const PRINTED = 5000;
const tenths = (value) => (Math.sign(value) * Math.floor(Math.abs(value) * 10 + 0.5 + 1e-6)) / 10;
const numberText = (value) => {
  if (value === 0) return "0.00";
  const digits = 2 - Math.floor(Math.log10(Math.abs(value)));
  if (Math.abs(value) < 5e-7) return "0.00";
  const shown = Math.max(0, digits);
  return value.toLocaleString("en", { minimumFractionDigits: shown, maximumFractionDigits: shown }).replace("-", "−");
};
const percentText = (value) => tenths(100 * value).toFixed(1).replace(/^-(0\.0)$/, "$1").replace("-", "−");
const pointText = (value) => {
  const text = percentText(value);
  return text === "0.0" || text.startsWith("−") ? text : `+${text}`;
};
const valueText = (value, kind) => ({ number: numberText, difference: pointText }[kind] ?? percentText)(value);
const NAMES = { generative: "generated", retrieval: "retrieved", control: "label-shuffled" };
const factText = (value, name) => {
  if (value === null) return "–";
  if (name === "shots") return value > 0 ? String(value) : "all";
  if (typeof value === "number") return String(Number(value.toFixed(1))).replace("-", "−");
  return name === "source" ? NAMES[value] ?? value : name === "strategy" ? value.replaceAll("_", " ") : value;
};
const dataTable = (root) => {
  const { columns, rows, recipes, noun } = JSON.parse(one("script[type='application/json']", root).textContent);
  const state = { column: -1, descending: false, shown: PAGE, filters: new Map() };
  const find = one("input[type=search]", root);
  const table = one("table", root);
  const more = one(".more", root);

  const recipeOf = (place) => {
    const list = recipes[place].flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]);
    const shown = make("dl", { className: "facts recipe" }, ...list);
    return make("td", { className: "key" }, make("button", { type: "button", onclick: () => enlarge([shown], null) }, "recipe"));
  };
  const cellOf = (value, column) => {
    if (column.kind === "recipe") return recipeOf(value);
    if (column.kind === "key" || column.kind === "fact") {
      return make("td", { className: typeof value === "string" ? "key" : "" }, factText(value, column.name));
    }
    if (value === null) return make("td", {}, "–");
    const [middle, low, high] = value.map((end) => valueText(end, column.kind));
    return low === undefined ? make("td", {}, middle) : make("td", {}, middle, make("small", {}, `${low} to ${high}`));
  };
  const keyOf = (row, place) => (Array.isArray(row[place]) ? row[place][0] : row[place]);
  const before = (a, b) => (typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b);

  const chosen = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    const keys = columns.flatMap((column, place) => (column.kind === "key" ? [place] : []));
    const kept = rows.filter((row) => {
      for (const [place, wanted] of state.filters) if (row[place] !== wanted) return false;
      if (!words.length) return true;
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
    one("tbody", table).replaceChildren(...lines);
    one(".count", root).textContent = `${page.length} of ${kept.length} ${noun} shown` + (kept.length < rows.length ? `, ${rows.length} in all.` : ".");
    more.hidden = page.length === kept.length;
  };
  const refilter = () => {
    state.shown = PAGE;
    show();
  };
  const sortBy = (place) => {
    state.descending = state.column === place ? !state.descending : columns[place].kind !== "key";
    state.column = place;
    all("thead th", table).forEach((head, index) => {
      head.ariaSort = index === place ? (state.descending ? "descending" : "ascending") : null;
    });
    show();
  };
  const lines = () => {
    const head = columns.flatMap((column) => (["key", "fact", "recipe"].includes(column.kind) ? [column.label] : [column.label, `${column.label} low`, `${column.label} high`]));
    const body = chosen().map((row) =>
      row.flatMap((value, place) => {
        if (columns[place].kind === "recipe") return [recipes[value].map(([name, text]) => `${name}: ${text}`).join("; ")];
        if (["key", "fact"].includes(columns[place].kind)) return [value === null ? "" : String(value)];
        return [0, 1, 2].map((end) => (value?.[end] === undefined ? "" : String(value[end])));
      }),
    );
    return [head, ...body];
  };

  columns.forEach((column, place) => {
    const button = make("button", { type: "button", onclick: () => sortBy(place) }, column.label);
    const words = rows.some((row) => typeof row[place] === "string");
    one("thead tr", table).append(make("th", { scope: "col", className: words ? "key" : "" }, button));
    const values = [...new Set(rows.map((row) => row[place]))];
    if (column.kind !== "key" || values.length < 2 || values.length > 200) return;
    values.sort(before);
    const options = values.map((value) => new Option(factText(value, column.name) || "none"));
    const select = make("select", { name: column.name }, new Option("all"), ...options);
    select.addEventListener("change", () => {
      if (select.selectedIndex === 0) state.filters.delete(place);
      else state.filters.set(place, values[select.selectedIndex - 1]);
      refilter();
    });
    one(".filters", root).append(make("label", {}, column.label, select));
  });
  find.addEventListener("input", refilter);
  one(".filters", root).addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    state.shown += 4 * PAGE;
    show();
  });
  one(".save", root).addEventListener("click", () => saveTable(lines(), root.dataset.name));
  // Printing shows all cells of the page; afterwards the screen is restored.
  let shown = PAGE;
  addEventListener("beforeprint", () => {
    shown = state.shown;
    state.shown = PRINTED;
    show();
  });
  addEventListener("afterprint", () => {
    state.shown = shown;
    show();
  });
  show();
};
for (const root of all(".data-table")) dataTable(root);

// Printing shows collapsed sections, except settings in JSON.
addEventListener("beforeprint", () => all("details:not(.unprinted)").forEach((details) => (details.open = true)));
