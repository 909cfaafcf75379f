"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const DASHES = { solid: "", dash: "6 3", dot: "2 2", dashdot: "6 2 2 2" };
  const SHAPES = {
    circle: '<circle cx="16" cy="8" r="5"/>', square: '<rect x="11" y="3" width="10" height="10"/>',
    diamond: '<path d="M16 2l6 6-6 6-6-6z"/>', "triangle-up": '<path d="M16 2l6 11H10z"/>',
    x: '<path d="M11 3l10 10M21 3L11 13" stroke-width="3"/>', cross: '<path d="M16 2v12M10 8h12" stroke-width="3"/>',
    "triangle-down": '<path d="M16 14l6-11H10z"/>', star: '<path d="M16 1l2 5h5l-4 3 2 6-5-4-5 4 2-6-4-3h5z"/>',
  };
  let chosen = null, printing = false;
  let hidden = new Set();
  try {  // what was hidden on another page, too, if this one can show it again
    hidden = new Set(JSON.parse(sessionStorage.getItem("hidden") || "[]").filter((name) => data.names.includes(name)));
  } catch { /* a file may have no storage */ }

  const options = { seeds: false, log: false, time: false };  // of the charts of training

  const isDark = () => !printing && (chosen ?? dark.matches);
  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  function shade(colour) {  // for a light or dark background; null is neutral
    if (colour === null) return css("--faint");
    return isDark() ? { "#000000": "#FFFFFF", "#882255": "#AA4499" }[colour] ?? colour : colour;
  }
  const transparent = (hex) => hex.startsWith("#") ? hex.slice(0, 7) + "2b" : hex;

  function coloured(trace) {
    const { colour, name, band, faint, detail, seconds } = trace.meta, c = shade(colour), made = { ...trace };
    made.visible = !hidden.has(name) && !(detail && !options.seeds) && !(band && options.seeds);
    if (options.time && seconds) made.x = seconds;
    made.showlegend = false;
    if (band) return { ...made, line: { width: 0, color: c }, fillcolor: transparent(c) };
    made.marker = { ...trace.marker, color: c, opacity: faint ? 0.5 : 1 };
    if (detail) made.opacity = 0.6;
    if (trace.line) made.line = { ...trace.line, color: c };
    if (trace.text) made.textfont = { color: css("--text"), size: 11 };
    for (const error of ["error_x", "error_y"]) if (trace[error]) made[error] = { ...trace[error], color: c };
    made.hoverlabel = { namelength: 40 };
    return made;
  }

  function layout(chart, width) {
    const text = css("--text"), line = css("--line"), narrow = width < 480;
    const axis = (given, name) => {
      const { whole, ...a } = given, most = narrow ? 5 : 9;
      const made = { ...a, gridcolor: line, zerolinecolor: text, linecolor: line, automargin: true, color: text,
        ticklen: 4, exponentformat: "SI", title: { ...a.title, font: { size: 12 }, standoff: 8 } };
      const curve = chart.data.some((trace) => trace.meta.seconds);
      if (curve && name === "x" && options.time) made.title = { ...made.title, text: "training time (s)" };
      else if (whole) {
        const xs = chart.data.flatMap((t) => t.x).filter((x) => x !== null);
        made.dtick = Math.max(1, Math.ceil((Math.max(...xs) - Math.min(...xs)) / most));
        made.tick0 = Math.min(...xs);
      }
      if (curve && name === "y" && options.log) Object.assign(made, { type: "log", tickformat: "~g" });
      if (a.ticktext && a.type !== "log") {
        const long = narrow ? 22 : 34;
        made.ticktext = a.ticktext.map((t) => t.length > long ? t.slice(0, long - 1) + "…" : t);
        const room = width / a.ticktext.length, longest = Math.max(...a.ticktext.map((t) => t.length));
        if (name === "x") made.tickangle = room < 7 * longest + 8 ? -90 : 0;
      }
      return made;
    };
    return {
      xaxis: axis(chart.layout.xaxis, "x"), yaxis: axis(chart.layout.yaxis, "y"), width,
      height: chart.rows ? Math.max(200, 90 + chart.rows * (chart.rows > 12 ? 22 : 40)) : (narrow ? 300 : 340),
      margin: { l: 48, r: 14, t: 12, b: 44 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", size: 12, color: text }, hovermode: "closest", dragmode: "zoom",
      showlegend: false, bargap: 0.25, barmode: "stack",
    };
  }

  const plots = () => [...document.querySelectorAll(".plot")];
  function draw(plot) {
    const chart = data.charts[plot.dataset.chart];
    const width = printing ? 640 : plot.clientWidth;
    return Plotly.react(plot, chart.data.map(coloured), layout(chart, width), {
      responsive: false, displayModeBar: false,
    });
  }

  function swatch(trace, coloured = false) {
    const c = shade(trace.meta.colour), symbol = trace.marker.symbol ?? "", hollow = symbol.endsWith("-open");
    const rule = trace.line ? `<path d="M1 8h30" stroke-width="2" stroke-dasharray="${DASHES[trace.line.dash]}"/>` : "";
    const shape = coloured ? '<rect x="6" y="4" width="20" height="8"/>' : SHAPES[symbol.replace("-open", "")] ?? "";
    return `<svg viewBox="0 0 32 16" aria-hidden="true" stroke="${c}" stroke-width="${hollow ? 2 : 1}" fill="${hollow ? "none" : c}">${rule}${shape}</svg>`;
  }
  function entries(traces) {  // of one name, the first trace that is not drawn lightly
    const found = new Map();
    for (const trace of traces) {
      const { name, band, faint, detail } = trace.meta;
      if (!band && !detail && (!found.has(name) || (found.get(name).meta.faint && !faint))) found.set(name, trace);
    }
    return found;
  }
  function legend(plot) {
    const chart = data.charts[plot.dataset.chart], found = entries(chart.data);
    const list = plot.parentElement.querySelector(".legend");
    list.hidden = Boolean(chart.rows) && [...found.keys()].every((name) => chart.layout.yaxis.ticktext.some((row) => row.startsWith(name)));
    const marks = chart.marks.map(([name, symbol]) => [name, { marker: { symbol }, meta: { colour: null } }]);
    list.replaceChildren(...[...found, ...marks].map(([name, trace]) => {
      const item = document.createElement("li");
      item.innerHTML = swatch(trace, marks.length > 0 && !trace.line && trace.meta.colour !== null);
      item.append(name);
      item.classList.toggle("off", hidden.has(name));
      return item;
    }));
  }
  function toolbar() {  // one place to show and hide, instead of as many as there are charts
    const place = document.getElementById("names");
    if (!place || place.childElementCount) return;
    const known = entries(Object.values(data.charts).flatMap((chart) => chart.data));
    place.replaceChildren(...data.names.filter((name) => known.has(name)).map((name) => {
      const item = document.createElement("li"), button = document.createElement("button");
      button.type = "button";
      button.dataset.name = name;
      button.addEventListener("click", () => toggle(name));
      item.append(button);
      return item;
    }));
  }
  function marks() {
    const charts = Object.values(data.charts), known = entries(charts.flatMap((chart) => chart.data));
    for (const b of document.querySelectorAll("#names button")) {
      const trace = known.get(b.dataset.name);
      b.innerHTML = swatch(trace, charts.some((chart) => chart.marks.length > 0 && chart.data.includes(trace)));
      b.append(b.dataset.name);
      b.setAttribute("aria-pressed", String(!hidden.has(b.dataset.name)));
    }
  }
  function toggle(name) {
    hidden.has(name) ? hidden.delete(name) : hidden.add(name);
    try { sessionStorage.setItem("hidden", JSON.stringify([...hidden])); } catch { /* only a convenience */ }
    paint();
  }

  function paint() {
    root.dataset.theme = isDark() ? "dark" : "light";
    marks();
    for (const plot of plots()) { legend(plot); draw(plot); }
  }

  const field = (value) => {
    let text = value === null ? "" : String(value);
    if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = "'" + text;  // a spreadsheet would run it
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  function save(name) {
    const { columns, rows } = data.tables[name];
    const text = [columns, ...rows].map((row) => row.map(field).join(",")).join("\r\n") + "\r\n";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = `${name}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  const MOST = 200;
  function fill(place) {
    if (place.childElementCount) return;
    const { columns, rows } = data.tables[place.dataset.table], table = document.createElement("table");
    const head = table.createTHead().insertRow(), body = table.createTBody();
    for (const name of columns) {
      const cell = document.createElement("th");
      cell.scope = "col"; cell.textContent = name; head.append(cell);
    }
    for (const row of rows.slice(0, MOST)) {
      const line = body.insertRow();
      for (const value of row) line.insertCell().textContent = value ?? "";
    }
    place.append(table);
    if (rows.length > MOST) place.append(`The first ${MOST} of ${rows.length} rows; the CSV has all.`);
    sortable(table);
    scrollable();
  }

  const UNITS = { k: 1e3, M: 1e6, G: 1e9 };
  function order(text) {  // a number if the text begins with one
    const found = /^[<≤]?\s*([+-]?[\d,]*\.?\d+(?:e[+-]?\d+)?)\s?([kMG])?(?![\w])/.exec(text);
    return found ? Number(found[1].replaceAll(",", "")) * (UNITS[found[2]] ?? 1) : text;
  }
  function sortable(table) {
    const rows = [...table.tBodies[0].rows];
    if (rows.length < 2) return;
    [...table.tHead.rows[0].cells].forEach((cell, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...cell.childNodes);
      cell.append(button);
      button.addEventListener("click", () => {
        const up = cell.getAttribute("aria-sort") !== "ascending", sign = up ? 1 : -1;
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        cell.setAttribute("aria-sort", up ? "ascending" : "descending");
        const keyed = rows.map((row) => [order(row.cells[column].textContent.trim()), row]);
        keyed.sort(([a], [b]) => {
          if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;  // texts stand last
          return sign * (typeof a === "number" ? a - b : a.localeCompare(b));
        });
        table.tBodies[0].append(...keyed.map(([, row]) => row));
      });
    });
  }
  function scrollable() {  // what does not scroll is no stop for the keyboard
    for (const box of document.querySelectorAll(".scroll")) {
      if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  }

  for (const b of document.querySelectorAll("button.csv")) b.addEventListener("click", () => save(b.dataset.table));
  for (const b of document.querySelectorAll("button.svg")) b.addEventListener("click", () =>
    Plotly.downloadImage(document.getElementById(`plot-${b.dataset.chart}`), { format: "svg", filename: b.dataset.chart }));
  for (const table of document.querySelectorAll(".sortable table")) sortable(table);
  for (const box of document.querySelectorAll("[data-option]")) {
    options[box.dataset.option] = box.checked;
    box.addEventListener("change", () => { options[box.dataset.option] = box.checked; paint(); });
  }
  for (const d of document.querySelectorAll("details.data")) d.addEventListener("toggle", () => fill(d.querySelector("[data-table]")));
  const show = (s) => {
    for (const part of document.querySelectorAll(`[data-group="${s.dataset.shows}"]`)) part.hidden = part.dataset.part !== s.value;
  };
  for (const s of document.querySelectorAll("select[data-shows]")) {
    show(s);  // after a reload, browsers restore what was chosen
    s.addEventListener("change", () => show(s));
  }
  document.getElementById("theme").addEventListener("click", () => { chosen = !isDark(); paint(); });
  dark.addEventListener("change", () => { if (chosen === null) paint(); });
  const print = (on) => { if (printing !== on) { printing = on; paint(); } };
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  matchMedia("print").addEventListener("change", (e) => print(e.matches));
  let pending = 0, before = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === before || printing) return;
    before = innerWidth;
    clearTimeout(pending);
    pending = setTimeout(() => { plots().forEach(draw); scrollable(); }, 150);
  });
  toolbar();
  paint();
  scrollable();

  if (data.live) {
    const ask = async () => {
      try {
        const said = await fetch("state", { cache: "no-store" });
        if (!said.ok) throw new Error(said.statusText);
        const now = await said.text();
        if (now !== data.live) location.reload();
      } catch { document.getElementById("live").textContent = "The server has gone; this is its last state."; }
      setTimeout(ask, 2000);
    };
    setTimeout(ask, 2000);
  }
})();
