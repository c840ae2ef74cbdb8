"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const fade = (hex, alpha) => hex + Math.round(alpha * 255).toString(16).padStart(2, "0");

  // A trace names its role; its color comes from the theme.
  function paint(trace, narrow) {
    const { series, role } = trace.meta || {};
    if (role === "right" || role === "wrong") {
      const [from, to] = role === "right" ? [css("--low"), css("--mid")] : [fade(css("--s1"), 0.12), css("--s1")];
      return { ...trace, colorscale: [[0, from], [1, to]], textfont: { color: css("--ink") } };
    }
    const copy = { ...trace, line: { ...trace.line }, marker: { ...trace.marker } };
    const color = role === "front" ? css("--soft") : role === "best" ? css("--best") : css("--s" + (series || 0));
    copy.line.color = color;
    if (role === "reward") {
      copy.marker.colorscale = [[0, css("--low")], [0.5, css("--mid")], [1, css("--high")]];
      copy.marker.line = { width: 1, color: css("--soft") };
      const lying = { orientation: "h", y: -0.18, yanchor: "top", thickness: 8, title: { text: "reward", side: "bottom" } };
      copy.marker.colorbar = { ...trace.marker.colorbar, ...(narrow ? lying : {}), tickfont: { color: css("--soft") } };
    } else {
      copy.marker.color = color;
      if (role === "best") copy.marker.line = { width: 1, color: css("--ink") };
    }
    if (trace.type === "box") copy.fillcolor = fade(color, 0.22);
    return copy;
  }

  function dress(layout, narrow) {
    const axis = own => ({
      gridcolor: css("--grid"), zerolinecolor: css("--line"), linecolor: css("--line"), automargin: true, ...own,
      title: { ...(own || {}).title, font: { size: 12 }, standoff: 6 }, nticks: narrow ? 5 : undefined,
    });
    return {
      ...layout,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: css("--ink") },
      margin: { l: 14, r: 14, t: 12, b: 12 },
      hoverlabel: { bgcolor: css("--panel"), bordercolor: css("--line"), font: { color: css("--ink") }, align: "left" },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, ...layout.legend },
      xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
      shapes: (layout.shapes || []).map(s => ({ ...s, line: { color: css("--best"), width: 1.5, dash: "dash" } })),
      annotations: (layout.annotations || []).map(a => ({ ...a, font: { color: css("--soft"), size: 12 } })),
      dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    };
  }

  const settings = { responsive: true, displaylogo: false, displayModeBar: false, scrollZoom: false };
  const drawings = () => Array.from(document.querySelectorAll(".plot"), div => {
    const { data, layout } = figures[div.dataset.figure];
    const narrow = div.clientWidth < 480;
    return Plotly.react(div, data.map(trace => paint(trace, narrow)), dress(layout, narrow), settings);
  });
  // With a view box, paper may scale a drawing to its column; on the screen it is as large as it was drawn.
  const box = svg => svg.setAttribute("viewBox", `0 0 ${svg.getAttribute("width")} ${svg.getAttribute("height")}`);
  const boxes = () => document.querySelectorAll(".plot .main-svg").forEach(box);
  const draw = () => Promise.all(drawings()).then(() => {
    boxes();
    document.documentElement.dataset.drawn = "yes";
  });
  // A4 between its margins is 703 CSS pixels wide; drawn for that, letters keep their size on paper.
  const fit = size => document.querySelectorAll(".plot").forEach(div => Plotly.relayout(div, size(div)));
  const paper = div => div.closest(".grid, .split") ? 330 : 680;
  addEventListener("beforeprint", () => { fit(div => ({ width: paper(div), height: div.clientHeight })); boxes(); });
  addEventListener("afterprint", () => { fit(() => ({ width: null, height: null, autosize: true })); boxes(); });
  dark.addEventListener("change", draw);
  draw();
})();
