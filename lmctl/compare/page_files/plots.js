// Drawing with uPlot: learning curves, and quality against cost.

const PALETTE = {
  light: ["#0060a8", "#c2410c", "#00795a", "#a3377d", "#8a6100", "#4b3fa7", "#00727d", "#5c5c5c"],
  dark: ["#6cb6ff", "#ff9e64", "#5fd3a5", "#f09bd0", "#e3c14f", "#b3a6ff", "#5fd4de", "#c0c0c0"],
};
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3]];
const GRID_POINTS = 400,
  GRID_OF_MANY = 120,
  MANY = 100;

function theme() {
  return document.documentElement.dataset.theme;
}
function styleOf(place) {
  return { stroke: PALETTE[theme()][place % 8], dash: DASHES[Math.floor(place / 8) % 4] };
}
function colourOf(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// An axis in the page's colours. A label says what is measured, in words.
function axis(label, values, unit, size = 50) {
  const line = { stroke: colourOf("--line"), width: 1 };
  return {
    label,
    values,
    size,
    ...(ROUND[unit] ? { incrs: ROUND[unit] } : {}),
    stroke: colourOf("--text"),
    grid: line,
    ticks: line,
    labelSize: 22,
    font: "12px system-ui",
    labelFont: "13px system-ui",
  };
}

function draw(holder, options, data) {
  if (holder.plot) holder.plot.destroy();
  const width = Math.max(240, holder.clientWidth - 2);
  holder.plot = new uPlot(
    { width, height: Math.max(260, Math.min(440, width * 0.5)), legend: { show: false }, ...options },
    data,
    holder,
  );
}

function empty(holder, words) {
  if (holder.plot) {
    holder.plot.destroy();
    holder.plot = null;
  }
  holder.setAttribute("aria-label", words);
  holder.replaceChildren(element("p", { className: "dim" }, words));
}

// Lines to draw: [{group, name, x points, split}], one for every run and kind of rows.
function linesOf(runs, wanted, groupOf) {
  const splits = wanted.rows === "both" ? ["train", "valid"] : [wanted.rows],
    lines = [];
  for (const run of runs)
    for (const split of splits) {
      const points = pointsOf(run.curves[split], wanted.over, wanted.metric, wanted.log);
      if (!points.length) continue;
      const ys =
        split === "train"
          ? smoothed(
              points.map((p) => p[1]),
              wanted.smoothing,
            )
          : null;
      lines.push({ run, split, group: groupOf(run), points: ys ? points.map((p, i) => [p[0], ys[i]]) : points });
    }
  return lines;
}

function drawCurves(holder, runs, wanted, groupOf, hidden, names) {
  const lines = linesOf(runs, wanted, groupOf).filter((line) => !hidden.has(line.group));
  if (!lines.length) return empty(holder, "No run that is shown has such a curve.");
  holder.querySelectorAll("p").forEach((p) => p.remove());
  const ends = lines.flatMap((line) => [line.points[0][0], line.points[line.points.length - 1][0]]);
  const low = Math.min(...ends),
    high = Math.max(...ends, low + 1e-9);
  const grid = gridOf(low, high, lines.length > MANY ? GRID_OF_MANY : GRID_POINTS, wanted.log);
  const series = [{ label: wanted.over }],
    data = [grid],
    bands = [];
  const add = (values, options) => {
    data.push(values);
    series.push({ points: { show: false }, spanGaps: false, ...options });
  };
  const dashed = (line, dash) => (wanted.rows === "both" && line.split === "train" ? [3, 3] : dash);
  const sets = new Map();
  for (const line of lines) {
    const joins = wanted.lines === "bands" && line.run.status === "completed"; // others would cut the band off
    const key = joins ? `cell ${line.run.cell} ${line.group} ${line.split}` : `run ${line.run.place} ${line.split}`;
    sets.set(key, [...(sets.get(key) || []), line]);
  }
  const thin = sets.size > 40;
  for (const set of sets.values()) {
    const { stroke, dash } = styleOf(set[0].group),
      band = bandOf(set.map((line) => onGrid(line.points, grid)));
    if (set.length > 1) {
      add(band.high, { width: 0 });
      add(band.low, { width: 0 });
      bands.push({ series: [data.length - 2, data.length - 1], fill: stroke + "33" });
    }
    const label = `${names[set[0].group]}${wanted.rows === "both" ? (set[0].split === "train" ? ", training" : ", validation") : ""}`;
    add(band.mean, {
      label,
      stroke: thin ? stroke + "90" : stroke,
      dash: dashed(set[0], dash),
      width: thin ? 1 : 2,
      isLine: true,
    });
  }
  const height = heightOf(grid, data.slice(1), wanted.whole);
  const metric = page.metrics.find((one) => one.name === wanted.metric);
  draw(
    holder,
    {
      series,
      bands,
      scales: {
        x: { time: false, distr: wanted.log ? 3 : 1 },
        y: {
          range: (u, least, most) =>
            isZoomed(u, grid) && most > least ? [least - 0.05 * (most - least), most + 0.05 * (most - least)] : height,
        },
      },
      axes: [
        axis(OVER[wanted.over], costNumbers({ unit: wanted.over }), wanted.over),
        axis(metricTitle(metric), shortNumbers, "", 60),
      ],
      cursor: { points: { show: false }, drag: { x: true, y: false } },
      hooks: { setCursor: [(u) => readCurves(u, wanted)] },
    },
    data,
  );
  holder.setAttribute(
    "aria-label",
    `${metricTitle(metric)} over ${OVER[wanted.over]}: ${sets.size} lines. Arrow keys read them.`,
  );
}

function isZoomed(u, grid) {
  const { min, max } = u.scales.x;
  return min !== null && max !== null && (min > grid[0] || max < grid[grid.length - 1]);
}

function readCurves(u, wanted) {
  const place = u.cursor.idx,
    output = byId("curve-readout");
  if (place === null || place === undefined) return;
  const found = u.series
    .map((one, i) => [one, u.data[i][place]])
    .filter(([one, value]) => one.isLine && value !== null);
  found.sort((a, b) => a[1] - b[1]);
  const words = found.slice(0, 8).map(([one, value]) => `${one.label} ${number(value)}`);
  const where = `${OVER[wanted.over]} ${costText({ unit: wanted.over }, u.data[0][place])}`;
  const more = found.length > 8 ? ` and ${found.length - 8} more` : "";
  output.textContent = `${where}: ${words.join("   ")}${more}`;
}

function roomy(low, high) {
  const margin = 0.08 * (high - low) || 0.05 * Math.abs(high) || 1;
  return [low - margin, high + margin];
}

function drawCosts(holder, runs, metric, cost, logarithmic, groupOf, front) {
  const at = (run) => [run.costs[cost.key], run.metrics[metric.name]];
  const shown = runs.filter(
    (run) =>
      !run.apart &&
      run.status === "completed" &&
      at(run).every((v) => v !== undefined && v !== null) &&
      (!logarithmic || at(run)[0] > 0),
  );
  if (!shown.length) return empty(holder, "No completed run that is shown has both.");
  holder.querySelectorAll("p").forEach((p) => p.remove());
  const groups = [...new Set(shown.map(groupOf))],
    onFront = new Set(front),
    isShown = new Set(shown);
  const drawn = [...new Set([...shown, ...front])]
    .filter((run) => !logarithmic || at(run)[0] > 0)
    .sort((a, b) => at(a)[0] - at(b)[0]);
  const data = [drawn.map((run) => at(run)[0])],
    series = [{}];
  data.push(drawn.map((run) => (onFront.has(run) ? at(run)[1] : null)));
  series.push({
    label: "front",
    stroke: colourOf("--dim"),
    width: 1.5,
    dash: [6, 4],
    spanGaps: true,
    points: { show: true, size: 15, stroke: colourOf("--dim"), fill: "transparent" },
  });
  for (const group of groups) {
    const { stroke } = styleOf(group);
    data.push(drawn.map((run) => (isShown.has(run) && groupOf(run) === group ? at(run)[1] : null)));
    series.push({ stroke, paths: () => null, points: { show: true, size: 8, fill: stroke, stroke } });
  }
  const range = (u, low, high) => (logarithmic ? [low / 1.2, high * 1.2] : roomy(low, high));
  draw(
    holder,
    {
      series,
      scales: {
        x: { time: false, distr: logarithmic ? 3 : 1, range },
        y: { range: (u, low, high) => roomy(low, high) },
      },
      axes: [axis(cost.name, costNumbers(cost), cost.unit), axis(metricTitle(metric), shortNumbers, "", 60)],
      cursor: { points: { show: false }, drag: { x: false, y: false } },
      hooks: { setCursor: [(u) => readCosts(u, drawn, metric, cost)] },
    },
    data,
  );
  holder.setAttribute(
    "aria-label",
    `${metricTitle(metric)} against ${cost.name}: ${shown.length} runs, ${front.length} of them on the Pareto front, listed below.`,
  );
}

function readCosts(u, shown, metric, cost) {
  const place = u.cursor.idx;
  if (place === null || place === undefined) return;
  let run = shown[place];
  if (u.cursor.top >= 0) {
    // of several runs near the pointer, the nearest one
    const far = (one) =>
      Math.hypot(
        u.valToPos(one.costs[cost.key], "x") - u.cursor.left,
        u.valToPos(one.metrics[metric.name], "y") - u.cursor.top,
      );
    run = shown.reduce((a, b) => (far(b) < far(a) ? b : a));
  }
  byId("cost-readout").textContent =
    `${run.name}: ${metric.name} ${metricText(metric, run.metrics[metric.name])}, ${cost.name} ${costText(cost, run.costs[cost.key])}`;
}

// Arrow keys move along a plot and read it out.
function withKeys(holder) {
  holder.addEventListener("keydown", (event) => {
    const u = holder.plot,
      step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!u || !step) return;
    event.preventDefault();
    const xs = u.data[0],
      wide = xs.length > 40 ? Math.ceil(xs.length / 40) : 1;
    const from = u.cursor.idx === null || u.cursor.idx === undefined ? (step > 0 ? -wide : xs.length) : u.cursor.idx;
    const place = Math.max(0, Math.min(xs.length - 1, from + step * wide));
    holder.parentElement.querySelector(".readout").setAttribute("aria-live", "polite");
    u.setCursor({ left: u.valToPos(xs[place], "x"), top: -1 });
    u.cursor.idx = place;
    u.hooks.setCursor.forEach((hook) => hook(u));
  });
}
