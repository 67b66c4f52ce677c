"use strict";
(() => {
  const PRINT_WIDTH = 700; // pixels between the margins of an A4 page
  const PRINT_ZOOM = 0.62; // of figures, letters included
  const plots = Array.from(document.querySelectorAll(".plot"));
  const config = (solid) => ({
    responsive: true, displaylogo: false,
    modeBarButtons: [solid
      ? ["toImage", "orbitRotation", "pan3d", "resetCameraDefault3d"]
      : ["toImage", "zoom2d", "pan2d", "resetScale2d"]],
  });

  // plotly.js is kept as gzip in base64 and unpacked once the page is shown.
  async function unpack() {
    const packed = atob(document.getElementById("plotly-gzip").textContent);
    const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  }

  // Figures: those in view first, the others while the browser is idle, all of them before printing.
  const hasWebGL = () => {
    try { return Boolean(document.createElement("canvas").getContext("webgl")); } catch { return false; }
  };
  const webgl = plots.some((plot) => plot.classList.contains("has-still")) && hasWebGL();

  // Figures are made for white paper; on a dark screen ink and paper change places, and dark lines become lighter.
  const NIGHT = {
    "#1b1f24": "#e4e7eb", "#ffffff": "#14181d", "#d9dee4": "#363d46", "#f5f7f9": "#1d232a", "#c4c9cf": "#4a525c",
    "#9aa2ab": "#6b747e", "#964a8b": "#c983bf", "#7a21dd": "#a877f0", "#e42536": "#f0525f",
    "#fde3a7": "#2a115c", "#f8a35c": "#8f2f86", "#8f2f86": "#f8a35c", "#2a115c": "#fde3a7",
  };
  let printing = false;
  const dark = window.matchMedia("screen and (prefers-color-scheme: dark)");
  const shades = new RegExp(Object.keys(NIGHT).join("|"), "g");
  function figureOf(plot) {
    const text = plot.querySelector("script").textContent;
    return JSON.parse(dark.matches && !printing ? text.replace(shades, (shade) => NIGHT[shade]) : text);
  }

  function draw(plot) {
    if (plot.dataset.state) return;
    if (plot.classList.contains("has-still") && !webgl) {
      plot.classList.add("no-webgl");
      plot.dataset.state = "drawn";
      return;
    }
    plot.dataset.state = "drawing";
    const figure = figureOf(plot);
    Plotly.newPlot(plot.querySelector(".canvas"), figure.data, figure.layout, config("scene" in figure.layout))
      .then(() => { plot.dataset.state = "drawn"; })
      .catch((error) => { plot.dataset.state = "failed"; console.error(plot.id, error); });
  }

  const later = window.requestIdleCallback || ((task) => window.setTimeout(task, 30));
  function drawRest() {
    const next = plots.find((plot) => !plot.dataset.state && !plot.closest("details:not([open])"));
    if (next) { draw(next); later(drawRest); }
  }

  function start() {
    const watcher = new IntersectionObserver((entries) => {
      entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
        watcher.unobserve(entry.target);
        draw(entry.target);
      });
    }, { rootMargin: "200px" });
    plots.forEach((plot) => watcher.observe(plot));
    window.setTimeout(() => later(drawRest), 50);
  }

  if (plots.length) {
    window.addEventListener("load", () => window.setTimeout(() => {
      unpack().then(start).catch((error) => {
        document.body.classList.add("no-figures");
        console.error("the figures cannot be drawn:", error);
      });
    }, 0));
  }

  function recolour() {
    plots.filter((plot) => plot.querySelector(".main-svg")).forEach((plot) => {
      const figure = figureOf(plot);
      Plotly.react(plot.querySelector(".canvas"), figure.data, figure.layout);
    });
  }
  dark.addEventListener("change", () => { if (!printing) recolour(); });

  function resize(width) {
    plots.filter((plot) => plot.dataset.state && !plot.classList.contains("has-still")).forEach((plot) => {
      const canvas = plot.querySelector(".canvas");
      const wide = plot.classList.contains("wide");
      const height = Number(plot.dataset.height);
      canvas.style.zoom = width ? PRINT_ZOOM : "";
      Plotly.relayout(canvas, width
        ? { width: (wide ? width : (width - 14) / 2) / PRINT_ZOOM, height }
        : { width: null, height, autosize: true });
    });
  }
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((part) => { part.open = true; });
    if (!window.Plotly) return;
    printing = true;
    plots.forEach(draw);
    if (dark.matches) recolour();
    resize(PRINT_WIDTH);
  });
  window.addEventListener("afterprint", () => {
    if (!window.Plotly) return;
    printing = false;
    if (dark.matches) recolour();
    resize(0);
  });

  // Tables: a click on a header sorts by that column, a second click turns the order round.
  function value(row, column) {
    const cell = row.cells[column];
    return cell.dataset.sort === undefined ? cell.textContent.trim() : Number(cell.dataset.sort);
  }
  function compare(a, b) {
    if (a === "" || b === "") return (a === "") - (b === "");
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    return a.localeCompare(b, "en", { numeric: true });
  }
  document.querySelectorAll("table.sortable").forEach((table) => {
    const headers = Array.from(table.tHead.rows[0].cells);
    headers.forEach((header, column) => header.firstElementChild.addEventListener("click", () => {
      const down = header.getAttribute("aria-sort") === "ascending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", down ? "descending" : "ascending");
      const body = table.tBodies[0];
      const rows = Array.from(body.rows);
      const blank = (row) => value(row, column) === "";
      rows.sort((a, b) => {
        if (blank(a) || blank(b)) return blank(a) - blank(b);
        return (down ? -1 : 1) * compare(value(a, column), value(b, column));
      });
      body.append(...rows);
    }));
  });
})();
