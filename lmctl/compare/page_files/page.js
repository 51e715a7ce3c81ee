// The page: reads the data, restores and keeps the view in the address (#...), and redraws what a control changes.

const page = JSON.parse(byId("data").textContent);
const state = { sort: "", descending: "", off: "", lines: "" };
const controls = [
  "filter",
  "theme",
  "curve-metric",
  "curve-over",
  "curve-rows",
  "curve-lines",
  "curve-colour",
  "curve-smoothing",
  "curve-log",
  "curve-whole",
  "cost-metric",
  "cost-cost",
  "cost-log",
  "effect-metric",
  "pair-a",
  "pair-b",
  "reload",
];
const off = new Set(),
  hidden = new Set();

function options(id, entries, chosen) {
  byId(id).replaceChildren(
    ...entries.map(([value, text, disabled]) => element("option", { value, disabled: Boolean(disabled) }, text)),
  );
  if (chosen !== undefined) byId(id).value = chosen;
}
function valueOf(control) {
  return control.type === "checkbox" ? String(control.checked) : control.value;
}
function setValue(control, value) {
  if (control.type === "checkbox") control.checked = value === "true";
  else if (control.tagName !== "SELECT" || [...control.options].some((o) => o.value === value && !o.disabled))
    control.value = value;
}

const initial = {};
function keep() {
  const kept = new URLSearchParams();
  for (const id of controls) if (valueOf(byId(id)) !== initial[id]) kept.set(id, valueOf(byId(id)));
  for (const key of ["sort", "descending"]) if (state[key]) kept.set(key, state[key]);
  if (off.size) kept.set("off", [...off].join(" "));
  history.replaceState(null, "", `#${kept}`);
}
function restore() {
  const kept = new URLSearchParams(location.hash.slice(1));
  for (const id of controls) {
    initial[id] = valueOf(byId(id));
    if (kept.has(id)) setValue(byId(id), kept.get(id));
  }
  for (const key of ["sort", "descending"]) state[key] = kept.get(key) || "";
  for (const place of (kept.get("off") || "").split(" ").filter(Boolean)) off.add(Number(place));
}

// A run passes if it has all words of the filter and none of those after a dash. `lr=0.003` is a whole setting, other
// words are part of a name, a status or a setting.
function passes(run) {
  const has = (word) =>
    word.includes("=")
      ? run.words.some((one) => one === word || one.endsWith(`.${word}`))
      : run.words.some((one) => one.includes(word));
  return byId("filter")
    .value.toLowerCase()
    .split(/\s+/)
    .filter(Boolean)
    .every((word) => (word.length > 1 && word[0] === "-" ? !has(word.slice(1)) : has(word)));
}
function shownRuns() {
  return page.runs.filter((run) => passes(run) && !off.has(run.place));
}

// Colours: by cell, run, or the values of a setting. Returns the names of the groups, and the group of a run.
function grouping(kind) {
  const names = new Map(),
    label = (run) =>
      kind === "cell"
        ? page.cells[run.cell]
        : kind === "run"
          ? run.name
          : `${page.axes[kind].name}: ${run.axes[kind] ?? "none"}`;
  for (const run of page.runs) if (!names.has(label(run))) names.set(label(run), names.size);
  return { names: [...names.keys()], of: (run) => names.get(label(run)) };
}

function curves() {
  const get = (name) => valueOf(byId(`curve-${name}`)),
    groups = grouping(get("colour"));
  const wanted = {
    metric: get("metric"),
    over: get("over"),
    rows: get("rows"),
    lines: get("lines"),
    smoothing: Number(get("smoothing")),
    log: get("log") === "true",
    whole: get("whole") === "true",
  };
  const runs = shownRuns();
  drawCurves(byId("curve-plot"), runs, wanted, groups.of, hidden, groups.names);
  const present = [...new Set(runs.map(groups.of))].sort((a, b) => a - b),
    most = 40;
  byId("curve-legend").replaceChildren(
    ...present.slice(0, most).map((group) => element("li", {}, legendEntry(group, groups.names[group]))),
  );
  if (present.length > most)
    byId("curve-legend").append(
      element("li", { className: "dim" }, `and ${present.length - most} more: choose another colour, or filter`),
    );
}
function legendEntry(group, name) {
  const { stroke, dash } = styleOf(group),
    space = "http://www.w3.org/2000/svg",
    svg = document.createElementNS(space, "svg"),
    line = document.createElementNS(space, "line");
  for (const [key, value] of Object.entries({ width: 26, height: 10, "aria-hidden": "true" }))
    svg.setAttribute(key, value);
  for (const [key, value] of Object.entries({
    x1: 0,
    x2: 26,
    y1: 5,
    y2: 5,
    stroke,
    "stroke-width": 3,
    "stroke-dasharray": dash.join(" "),
  }))
    line.setAttribute(key, value);
  svg.append(line);
  const button = element(
    "button",
    { type: "button", attributes: { "aria-pressed": String(!hidden.has(group)) } },
    svg,
    name,
  );
  button.onclick = () => {
    if (!hidden.delete(group)) hidden.add(group);
    curves();
    [...byId("curve-legend").querySelectorAll("button")].find((one) => one.textContent === name)?.focus();
  };
  return button;
}

function costs() {
  const metric = page.metrics.find((one) => one.name === byId("cost-metric").value),
    cost = page.costs.find((one) => one.key === byId("cost-cost").value);
  if (!metric || !cost) return empty(byId("cost-plot"), "No run has a metric.");
  const front = (page.fronts[metric.name]?.[cost.key] || []).map((place) => page.runs[place]),
    groups = grouping(byId("curve-colour").value);
  drawCosts(byId("cost-plot"), shownRuns(), metric, cost, byId("cost-log").checked, groups.of, front);
  showFront(metric, cost, front);
}
function effects() {
  const metric = page.metrics.find((one) => one.name === byId("effect-metric").value);
  showEffects(metric || { name: "" });
}
function pair() {
  const run = (id) => page.runs[Number(byId(id).value)];
  if (page.runs.length > 1) showPair(run("pair-a"), run("pair-b"));
}

const dark = matchMedia("(prefers-color-scheme: dark)");
function setTheme(printing) {
  const chosen = byId("theme").value;
  document.documentElement.dataset.theme = printing
    ? "light"
    : chosen === "auto"
      ? dark.matches
        ? "dark"
        : "light"
      : chosen;
}
function plots() {
  curves();
  costs();
}

function start() {
  const metrics = page.metrics.map((one) => [one.name, one.name]),
    costly = page.costs.map((one) => [one.key, one.name, !page.runs.some((run) => run.costs[one.key])]);
  const drawn = page.metrics.filter((one) =>
    page.runs.some((run) => one.name in run.curves.valid.values || one.name in run.curves.train.values),
  );
  const sent = page.runs.some((run) => (run.curves.train.at.bytes || []).some((value) => value > 0));
  options(
    "curve-metric",
    drawn.map((one) => [one.name, one.name]),
  );
  options(
    "curve-over",
    Object.entries(OVER).map(([key, name]) => (key === "bytes" && !sent ? [key, `${name} (none)`, true] : [key, name])),
  );
  options(
    "curve-colour",
    [
      ...(page.cells.length < page.runs.length || page.cells.length <= 32 ? [["cell", "by cell"]] : []),
      ["run", "by run"],
      ...page.axes.map((one, place) => [String(place), `by ${one.name}`]),
    ],
    page.cells.length > 12 && page.axes.length ? "0" : undefined,
  );
  options("cost-metric", metrics);
  options("cost-cost", costly);
  options("effect-metric", metrics);
  for (const id of ["pair-a", "pair-b"])
    options(
      id,
      page.runs.map((run) => [String(run.place), run.name]),
      id === "pair-a"
        ? "0"
        : String((page.runs.find((run) => run.cell !== page.runs[0].cell) || page.runs[1] || page.runs[0]).place),
    );
  const seeds = page.runs.length > page.cells.length;
  byId("curve-lines").value = seeds ? "bands" : "runs";
  if (!page.runs.some((run) => (run.curves.valid.at.step || []).length > 2)) byId("curve-rows").value = "train";
  if (page.runs.length === 2) byId("differences").before(byId("pair"));
  byId("pair").hidden = page.runs.length < 2;
  byId("reloading").hidden = !page.running;
  byId("counts").textContent = page.counts;
  restore();
  setTheme(false);
  showNotes();
  showDifferences();
  showFailed();
  document.querySelector("nav").append(
    ...[...document.querySelectorAll("main section:not([hidden])")].map((one) =>
      element(
        "a",
        {
          href: `#${one.id}`,
          onclick: (event) => {
            event.preventDefault();
            one.scrollIntoView();
            one.tabIndex = -1;
            one.focus({ preventScroll: true });
          },
        },
        one.querySelector("h2").textContent,
      ),
    ),
  );
  const redraw = {
    curve: curves,
    cost: costs,
    effect: effects,
    pair,
    filter: () => {
      shown();
      table();
      plots();
    },
    theme: () => {
      setTheme(false);
      plots();
    },
    reload: () => {},
  };
  for (const id of controls)
    byId(id).addEventListener("input", () => {
      keep();
      if (id === "curve-colour") {
        hidden.clear();
        costs();
      }
      redraw[id.split("-")[0]]();
    });
  dark.addEventListener("change", () => {
    setTheme(false);
    plots();
  });
  addEventListener("beforeprint", () => {
    setTheme(true);
    plots();
  });
  addEventListener("afterprint", () => {
    setTheme(false);
    plots();
  });
  let waiting;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(plots, 150);
  });
  for (const id of ["curve-plot", "cost-plot"]) withKeys(byId(id));
  shown();
  table();
  plots();
  effects();
  pair();
  if (page.running)
    setInterval(() => {
      if (byId("reload").checked && document.activeElement !== byId("filter")) location.reload();
    }, 15000);
  document.documentElement.dataset.ready = "true";
}
start();
