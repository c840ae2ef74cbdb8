"use strict";
(() => {
  const { networks, cores, precisions, protocol, tools, calibrated } = JSON.parse(document.getElementById("data").textContent);
  const at = id => document.getElementById(id);
  const make = (tag, attributes = {}, text) => {
    const svg = ["svg", "path", "line", "text", "g", "circle"].includes(tag);
    const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };

  // A family has a color and a shape: seven colors alone are too few. timm's networks are rings.
  const COLORS = 7;
  const SHAPES = [
    r => `M${-r} 0A${r} ${r} 0 1 0 ${r} 0A${r} ${r} 0 1 0 ${-r} 0Z`,
    r => `M${-r * .9} ${-r * .9}H${r * .9}V${r * .9}H${-r * .9}Z`,
    r => `M0 ${-r * 1.3}L${r * 1.3} 0L0 ${r * 1.3}L${-r * 1.3} 0Z`,
    r => `M0 ${-r * 1.25}L${r * 1.2} ${r * .85}H${-r * 1.2}Z`,
    r => `M0 ${r * 1.25}L${r * 1.2} ${-r * .85}H${-r * 1.2}Z`,
  ];
  const families = [...new Set(networks.map(n => n.family))].sort((a, b) => (a === "timm") - (b === "timm") || (a < b ? -1 : 1));
  const order = new Map(families.map((family, index) => [family, index]));
  const style = family => family === "timm"
    ? { path: SHAPES[0], color: "var(--peer)" }
    : { path: SHAPES[Math.floor(order.get(family) / COLORS) % SHAPES.length], color: `var(--s${order.get(family) % COLORS})` };

  const from = new URLSearchParams(location.hash.slice(1));
  const state = {
    core: from.get("core") in cores ? from.get("core") : Object.keys(cores)[0],
    precision: [...precisions, "any"].includes(from.get("precision")) ? from.get("precision") : precisions[0],
    off: new Set((from.get("off") || "").split(",").filter(Boolean)),
    sort: "ms", up: true, chosen: null,
  };
  const FIELDS = { search: "value", ms: "value", mb: "value", permissive: "checked", dense: "checked", peers: "checked" };
  for (const [id, kind] of Object.entries(FIELDS)) {
    if (from.has(id)) at(id)[kind] = kind === "checked" ? from.get(id) === "true" : from.get(id);
  }
  function remember() {
    const now = new URLSearchParams({ core: state.core, precision: state.precision });
    if (state.off.size) now.set("off", [...state.off].join(","));
    for (const [id, kind] of Object.entries(FIELDS)) {
      const plain = kind === "checked" ? at(id).defaultChecked : "";
      if (at(id)[kind] !== plain) now.set(id, at(id)[kind]);
    }
    history.replaceState(null, "", `#${now}`);
  }

  // How far off estimates of a precision are; undefined where nobody knows.
  const errorOn = (facts, precision) => precision === calibrated ? facts : facts.held_out?.[precision];

  // One point per counted file of the chosen core and precision.
  function points() {
    const facts = cores[state.core];
    return networks.flatMap(network => network.files
      .filter(file => file.device === state.core && file.latency_ms && (state.precision === "any" || file.precision === state.precision))
      .map(file => {
        const known = errorOn(facts, file.precision), ms = file.latency_ms;
        const range = known ? { low: ms * known.low_ratio, high: ms * known.high_ratio } : { low: ms, high: ms };
        return { ...network, ...file, ...range, known: !!known, ms, mb: file.size_bytes / 1e6 };
      }));
  }
  function passes(point) {
    const words = at("search").value.trim().toLowerCase();
    const [ms, mb] = [parseFloat(at("ms").value), parseFloat(at("mb").value)];
    return !state.off.has(point.family)
      && (!words || `${point.name} ${point.family}`.toLowerCase().includes(words))
      && !(point.ms > ms) && !(point.mb > mb)
      && (!at("permissive").checked || point.permissive)
      && (!at("dense").checked || point.dense)
      && (at("peers").checked || point.family !== "timm");
  }
  function frontOf(shown) {
    let best = 0;
    return shown.filter(p => p.top1 !== null).sort((a, b) => a.ms - b.ms || b.top1 - a.top1)
      .filter(p => p.top1 > best && (best = p.top1));
  }

  const number = (value, digits) => value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits });
  const milliseconds = value => number(value, value < 10 ? 2 : 1);
  const key = point => `${point.name}/${point.precision}`;
  const label = point => point.name.replace(/^timm:/, "").replace(/\..*/, "") + (state.precision === "any" ? ` ${point.precision}` : "");

  function ticks(low, high) {
    const found = [];
    for (let decade = 10 ** Math.floor(Math.log10(low)); decade <= high; decade *= 10) {
      for (const step of [1, 2, 5]) if (step * decade >= low && step * decade <= high) found.push(step * decade);
    }
    return found;
  }

  let placed = [];
  function draw(shown, front) {
    const drawn = shown.filter(p => p.top1 !== null);
    const width = Math.max(300, at("plot").clientWidth), height = width < 560 ? Math.round(width * 1.02) : Math.min(560, Math.round(width * .52));
    const [left, right, top, bottom] = [38, 14, 28, 38];
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "top-1 over estimated latency" });
    at("plot").replaceChildren(svg);
    placed = [];
    if (!drawn.length) {
      svg.append(make("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "nothing counted is within these limits"));
      return;
    }
    const all = drawn.map(p => p.ms), scores = drawn.map(p => p.top1);
    const [x0, x1] = [Math.min(...all) / 1.15, Math.max(...all) * 1.3];
    const [y0, y1] = [Math.floor(Math.min(...scores) - 1), Math.ceil(Math.max(...scores) + 1)];
    const x = ms => left + (Math.log(ms / x0) / Math.log(x1 / x0)) * (width - left - right);
    const y = top1 => height - bottom - ((top1 - y0) / (y1 - y0)) * (height - top - bottom);
    for (const tick of ticks(x0, x1)) {
      svg.append(make("line", { class: "grid", x1: x(tick), x2: x(tick), y1: top, y2: height - bottom }));
      svg.append(make("text", { x: x(tick), y: height - bottom + 16, "text-anchor": "middle" }, `${+tick.toPrecision(2)}`));
    }
    const step = Math.max(1, Math.ceil((y1 - y0) / 8));
    for (let tick = Math.ceil(y0 / step) * step; tick <= y1; tick += step) {
      svg.append(make("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }));
      svg.append(make("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, `${tick}`));
    }
    svg.append(make("text", { x: width - right, y: height - 4, "text-anchor": "end" }, "estimated milliseconds per image, log scale"));
    svg.append(make("text", { x: left - 32, y: 12 }, "top-1 %"));
    const line = front.map((p, i) => i ? `H${x(p.ms)}V${y(p.top1)}` : `M${x(p.ms)} ${y(p.top1)}`).join("");
    if (front.length) svg.append(make("path", { class: "front", d: line }));
    const onFront = new Set(front.map(key));
    for (const point of drawn.sort((a, b) => onFront.has(key(a)) - onFront.has(key(b)))) {
      const { path, color } = style(point.family), own = onFront.has(key(point));
      const classes = ["mark", point.family === "timm" ? "peer" : "", own ? "" : "dim"].join(" ");
      svg.append(make("path", { class: classes, d: path(own ? 6 : 5), transform: `translate(${x(point.ms)} ${y(point.top1)})`, fill: color }));
      placed.push({ point, x: x(point.ms), y: y(point.top1), low: x(point.low), high: x(point.high) });
    }
    labels(svg, front, x, y, width, right);
    svg.append(make("g", { id: "over" }));
  }

  // Names of the front, where they lie over nothing else.
  function labels(svg, front, x, y, width, right) {
    const taken = placed.map(p => [p.x - 6, p.y - 6, p.x + 6, p.y + 6]);
    for (const point of [...front].reverse()) {
      const text = make("text", { class: "label" }, label(point));
      svg.append(text);
      const long = text.getComputedTextLength();
      const [px, py] = [x(point.ms), y(point.top1)];
      const free = [[px - long - 9, py - 7], [px - long / 2, py - 11], [px + 9, py + 14], [px - long - 9, py + 14], [px + 9, py - 7]].find(([tx, ty]) => {
        const box = [tx, ty - 11, tx + long, ty + 3];
        return tx > 40 && tx + long < width - right && ty > 12
          && taken.every(t => t[2] < box[0] || t[0] > box[2] || t[3] < box[1] || t[1] > box[3]);
      });
      if (!free) { text.remove(); continue; }
      text.setAttribute("x", free[0]);
      text.setAttribute("y", free[1]);
      taken.push([free[0] - 2, free[1] - 12, free[0] + long + 2, free[1] + 4]);
    }
  }

  const COLUMNS = [
    ["model", p => p.name, "name"], ["precision", p => p.precision, "precision"],
    ["est. ms", p => milliseconds(p.ms), "ms", "n"], ["10th–90th", p => p.known ? `${milliseconds(p.low)}–${milliseconds(p.high)}` : "unknown", "low", "n"],
    ["top-1 %", p => p.top1 === null ? "" : number(p.top1, 1) + (p.distilled ? " †" : ""), "top1", "n"],
    ["params M", p => number(p.params / 1e6, 2), "params", "n"], ["MACs M", p => number(p.macs / 1e6, 0), "macs", "n"],
    ["file MB", p => number(p.mb, 2), "mb", "n"], ["parts", p => p.partitions ?? "", "partitions", "n"],
    ["pixels", p => p.resolution, "resolution", "n"], ["weights' license", p => p.license, "license"], ["source of top-1", p => p.source, "source"],
  ];
  function list(shown, front) {
    const onFront = new Set(front.map(key));
    const value = p => p[state.sort] ?? (state.up ? Infinity : -Infinity);
    const sorted = [...shown].sort((a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0) * (state.up ? 1 : -1));
    at("heads").replaceChildren(...COLUMNS.map(([title, , sort, kind]) => {
      const head = make("th", { class: kind || "", "aria-sort": state.sort === sort ? (state.up ? "ascending" : "descending") : "none" });
      const button = make("button", { type: "button" }, title + (state.sort === sort ? (state.up ? " ▲" : " ▼") : ""));
      button.onclick = () => { state.up = state.sort === sort ? !state.up : true; state.sort = sort; show(); };
      head.append(button);
      return head;
    }));
    at("rows").replaceChildren(...sorted.map(point => {
      const row = make("tr", { class: onFront.has(key(point)) ? "front" : "" });
      row.append(...COLUMNS.map(([, text, , kind], i) => make(i ? "td" : "th", { class: kind || "" }, text(point))));
      row.onmouseenter = () => mark(placed.find(p => key(p.point) === key(point)));
      row.onmouseleave = () => mark(null);
      return row;
    }));
  }

  function mark(found) {
    const over = at("over");
    if (!over) return;
    over.replaceChildren();
    if (!found) return;
    over.append(make("line", { class: "range", x1: found.low, x2: found.high, y1: found.y, y2: found.y }));
    over.append(make("circle", { class: "ring", cx: found.x, cy: found.y, r: 9 }));
  }
  function tip(found) {
    mark(found);
    at("tip").hidden = !found;
    if (!found) return;
    const p = found.point;
    const lines = [
      `${p.family}, ${p.precision}, ${state.core} (emulated)`,
      `estimated ${milliseconds(p.ms)} ms, ` + (p.known ? `10th to 90th percentile ${milliseconds(p.low)}–${milliseconds(p.high)}` : "error unknown"),
      `top-1 ${number(p.top1, 2)}%${p.distilled ? ", with a teacher" : ""}, published, float weights`,
      `${number(p.params / 1e6, 2)} M parameters, ${number(p.macs / 1e6, 0)} M MACs, ${p.resolution} px`,
      `file ${number(p.mb, 2)} MB, ${p.partitions ?? "?"} XNNPACK partition${p.partitions === 1 ? "" : "s"}`,
      `license: ${p.license || "not stated"}`, p.source, ...(p.note ? [p.note] : []),
    ];
    at("tip").replaceChildren(make("b", {}, p.name), ...lines.map(line => make("span", {}, line)));
    const box = at("plot").firstChild.getBoundingClientRect(), scale = box.width / at("plot").firstChild.viewBox.baseVal.width;
    const own = at("tip").getBoundingClientRect(), px = box.left + found.x * scale, py = box.top + found.y * scale;
    const x = Math.max(6, Math.min(px + 16, document.documentElement.clientWidth - own.width - 8));
    const y = py - own.height - 14 > 4 ? py - own.height - 14 : py + 18;
    at("tip").style.left = `${x + scrollX}px`;
    at("tip").style.top = `${y + scrollY}px`;
  }
  function nearest(event) {
    const svg = at("plot").firstChild;
    if (!svg) return null;
    const box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
    const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
    const reach = event.pointerType === "touch" ? 32 : 16;
    return placed.map(p => [Math.hypot(p.x - x, p.y - y), p]).filter(([far]) => far < reach).sort((a, b) => a[0] - b[0])[0]?.[1] || null;
  }
  at("plot").addEventListener("pointermove", event => tip(nearest(event)));
  at("plot").addEventListener("pointerdown", event => tip(nearest(event)));
  at("plot").addEventListener("pointerleave", event => { if (event.pointerType !== "touch") tip(null); });

  function toggles(id, names, chosen, choose, shownAs = name => name) {
    at(id).replaceChildren(...names.map(name => {
      const button = make("button", { type: "button", "aria-pressed": String(name === chosen) }, shownAs(name));
      button.onclick = () => { choose(name); show(); };
      return button;
    }));
  }
  function chips(every) {
    const counts = new Map();
    for (const point of every) counts.set(point.family, (counts.get(point.family) || 0) + 1);
    at("families").replaceChildren(...families.filter(family => counts.has(family)).map(family => {
      const { path, color } = style(family);
      const button = make("button", { type: "button", "aria-pressed": String(!state.off.has(family)) });
      const icon = make("svg", { viewBox: "-8 -8 16 16", "aria-hidden": "true" });
      icon.append(make("path", family === "timm" ? { d: path(5), fill: "none", stroke: color, "stroke-width": 2 } : { d: path(5), fill: color }));
      button.append(icon, `${family} ${counts.get(family)}`);
      button.onclick = () => { state.off.has(family) ? state.off.delete(family) : state.off.add(family); show(); };
      return button;
    }));
  }

  function show() {
    const every = points(), shown = every.filter(passes), front = frontOf(shown), facts = cores[state.core];
    toggles("cores", Object.keys(cores), state.core, name => { state.core = name; });
    toggles("precisions", [...precisions, "any"], state.precision, name => { state.precision = name; });
    const error = precision => errorOn(facts, precision) ? `±${errorOn(facts, precision).error_percent}% for ${precision}` : `unknown for ${precision}`;
    const chosen = state.precision === "any" ? precisions : [state.precision];
    at("caption").textContent = `${facts.description}: ${shown.length} of ${every.length} counted files`;
    at("error").textContent = `Mean error on networks left out of the calibration: ${chosen.map(error).join(", ")}.`
      + (state.precision === calibrated ? "" : ` Top-1 is that of float weights: reduced precision may cost some.`)
      + " The dashed line is the front: no shown file is both faster and more accurate. † with a teacher.";
    const silent = shown.filter(p => p.top1 === null).length;
    at("hidden").textContent = silent ? `${silent} without a published top-1 are in the table alone.` : "";
    chips(every);
    draw(shown, front);
    list(shown, front);
    const counted = new Set(every.map(p => p.name));
    const waiting = networks.filter(n => !counted.has(n.name));
    at("waiting-title").textContent = `${waiting.length} of ${networks.length} networks have no ${state.precision === "any" ? "" : state.precision + " "}number on ${state.core} yet`;
    at("waiting").textContent = waiting.map(n => {
      const failed = n.files.find(f => f.device === state.core && (state.precision === "any" || f.precision === state.precision) && f.reason);
      return failed ? `${n.name} (${failed.reason})` : n.name;
    }).join(", ");
    at("basis").textContent = `${state.core}: ${facts.cpu}; ${facts.runtime}. Calibrated on: ${facts.basis}.`;
    remember();
  }

  const total = new Set(networks.filter(n => n.files.some(f => f.latency_ms)).map(n => n.name)).size;
  at("coverage").textContent = `${total} of ${networks.length} networks are counted so far on at least one core; the others are listed below, none is guessed.`;
  at("protocol").textContent = `${protocol}.`;
  at("tools").textContent = Object.entries(tools).map(([name, version]) => `${name} ${version}`).join(", ");
  for (const id of Object.keys(FIELDS)) at(id).addEventListener("input", show);
  addEventListener("resize", () => { tip(null); show(); });
  show();
  document.documentElement.dataset.drawn = "yes";
})();
