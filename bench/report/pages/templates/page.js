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
  try { hidden = new Set(JSON.parse(sessionStorage.getItem("hidden") || "[]")); } catch { /* a file may have no storage */ }

  const isDark = () => !printing && (chosen ?? dark.matches);
  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  function shade(colour) {  // for a light or dark background; null is neutral
    if (colour === null) return css("--faint");
    return isDark() && colour === "#000000" ? "#FFFFFF" : colour;
  }
  const transparent = (hex) => hex.startsWith("#") ? hex.slice(0, 7) + "2b" : hex;

  function coloured(trace) {
    const { colour, name, band, faint } = trace.meta, c = shade(colour), made = { ...trace, visible: !hidden.has(name) };
    made.showlegend = false;
    if (band) return { ...made, line: { width: 0, color: c }, fillcolor: transparent(c) };
    made.marker = { ...trace.marker, color: c, opacity: faint ? 0.5 : 1 };
    if (trace.line) made.line = { ...trace.line, color: c };
    if (trace.text) made.textfont = { color: css("--text"), size: 11 };
    if (trace.error_x) made.error_x = { ...trace.error_x, color: c };
    made.hoverlabel = { namelength: 40 };
    return made;
  }

  function layout(chart, width) {
    const text = css("--text"), line = css("--line"), narrow = width < 480;
    const axis = (given, name) => {
      const { whole, ...a } = given, most = narrow ? 5 : 9;
      const made = { ...a, gridcolor: line, zerolinecolor: text, linecolor: line, automargin: true, color: text,
        ticklen: 4, exponentformat: "SI", title: { ...a.title, font: { size: 12 }, standoff: 8 } };
      if (whole) {
        const xs = chart.data.flatMap((t) => t.x).filter((x) => x !== null);
        made.dtick = Math.max(1, Math.ceil((Math.max(...xs) - Math.min(...xs)) / most));
        made.tick0 = Math.min(...xs);
      }
      if (a.type === "log") {  // fewer ticks the more decades there are; one value alone has two around it
        const values = chart.data.flatMap((t) => t[name]).filter((v) => v > 0);
        const decades = Math.log10(Math.max(...values) / Math.min(...values));
        if (decades > 1 || decades < 0.05) made.dtick = decades > 2 ? Math.ceil(decades / 8) : "D2";
        if (made.dtick === "D2") made.tickformat = Math.min(...values) < 1 ? "~g" : "~s";  // not the digit alone
      }
      if (a.ticktext) {
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
      displaylogo: false, responsive: false, displayModeBar: printing ? false : "hover",
      modeBarButtonsToRemove: ["select2d", "lasso2d"], toImageButtonOptions: { format: "svg", filename: plot.dataset.chart },
    });
  }

  function legend(plot) {
    const list = plot.parentElement.querySelector(".legend"), chart = data.charts[plot.dataset.chart];
    const entries = new Map();
    for (const trace of chart.data) {  // of one name, the first that is not drawn lightly
      const { name, band, faint } = trace.meta;
      if (!band && (!entries.has(name) || (entries.get(name).meta.faint && !faint))) entries.set(name, trace);
    }
    list.replaceChildren(...[...entries].map(([name, trace]) => {
      const item = document.createElement("li"), button = document.createElement("button");
      button.type = "button";
      button.dataset.name = name;
      button.setAttribute("aria-pressed", String(!hidden.has(name)));
      const c = shade(trace.meta.colour);
      const rule = trace.line ? `<path d="M1 8h30" stroke-width="2" stroke-dasharray="${DASHES[trace.line.dash]}"/>` : "";
      const shape = SHAPES[trace.marker.symbol] ?? "";
      button.innerHTML = `<svg viewBox="0 0 32 16" aria-hidden="true" stroke="${c}" fill="${c}">${rule}${shape}</svg>`;
      button.append(name);
      button.addEventListener("click", () => toggle(name));
      item.append(button);
      return item;
    }));
  }

  function toggle(name) {
    hidden.has(name) ? hidden.delete(name) : hidden.add(name);
    try { sessionStorage.setItem("hidden", JSON.stringify([...hidden])); } catch { /* only a convenience */ }
    for (const b of document.querySelectorAll(".legend button")) b.setAttribute("aria-pressed", String(!hidden.has(b.dataset.name)));
    for (const plot of plots()) {
      const hits = [...plot.data.keys()].filter((i) => plot.data[i].meta.name === name);
      if (hits.length) Plotly.restyle(plot, { visible: !hidden.has(name) }, hits);
    }
  }

  function paint() {
    root.dataset.theme = isDark() ? "dark" : "light";
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
  }

  for (const b of document.querySelectorAll("button.csv")) b.addEventListener("click", () => save(b.dataset.table));
  for (const d of document.querySelectorAll("details.data")) d.addEventListener("toggle", () => fill(d.querySelector("[data-table]")));
  for (const s of document.querySelectorAll("select[data-shows]")) s.addEventListener("change", () => {
    for (const part of document.querySelectorAll(`[data-group="${s.dataset.shows}"]`)) part.hidden = part.dataset.part !== s.value;
  });
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
    pending = setTimeout(() => plots().forEach(draw), 150);
  });
  paint();

  if (data.live) {
    setInterval(async () => {
      try {
        const said = await fetch("state", { cache: "no-store" });
        if (!said.ok) throw new Error(said.statusText);
        const now = await said.text();
        if (now !== data.live) location.reload();
      } catch { document.getElementById("live").textContent = "The server has gone; this is its last state."; }
    }, 2000);
  }
})();
