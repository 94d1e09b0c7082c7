"use strict";
// Draws the figures that stand as JSON beside their places. A colour is the name of a custom property of the
// stylesheet, so that light, dark and paper are decided there alone.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const paper = matchMedia("print");
  const touch = matchMedia("(pointer: coarse)");
  const charts = Array.from(document.querySelectorAll(".chart"), (place) => ({
    place,
    figure: JSON.parse(place.closest("figure").querySelector("script").textContent),
  }));

  function coloured(value, style) {
    if (typeof value === "string") {
      return value.startsWith("var(") ? style.getPropertyValue(value.slice(4, -1)).trim() : value;
    }
    if (Array.isArray(value)) return value.map((each) => coloured(each, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, coloured(each, style)]));
  }

  // Plotly's own `responsive` is asynchronous: what is printed would keep the width of the screen.
  function draw() {
    const style = getComputedStyle(document.documentElement);
    for (const chart of charts) {
      const { data, layout } = coloured(chart.figure, style);
      chart.width = chart.place.clientWidth;
      layout.width = chart.width;
      layout.uirevision = "kept"; // what the reader zoomed into
      layout.dragmode = touch.matches ? false : "zoom"; // a finger on a chart scrolls the page
      Plotly.react(chart.place, data, layout, { displayModeBar: false });
    }
  }

  function onPaper(is) {
    document.documentElement.classList.toggle("on-paper", is);
    draw();
  }

  function resized() {
    if (charts.some((chart) => chart.width !== chart.place.clientWidth)) draw();
  }

  draw();
  dark.addEventListener("change", draw);
  paper.addEventListener("change", (event) => onPaper(event.matches));
  addEventListener("resize", () => requestAnimationFrame(resized));
  addEventListener("beforeprint", () => onPaper(true));
  addEventListener("afterprint", () => onPaper(false));
})();
