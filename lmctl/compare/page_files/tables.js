// Tables. All text goes through textContent: names and messages of runs are never markup.

function byId(id) {
  return document.getElementById(id);
}

function element(name, properties, ...children) {
  const { attributes, ...rest } = properties || {};
  const made = Object.assign(document.createElement(name), rest);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children.map((child) => (child === null || child === undefined ? "" : child)));
  return made;
}

// Text that may be broken within names: after commas, dots, slashes and underscores. What is copied is the text alone.
function breakable(text) {
  return element("span", {}, ...text.split(/(?<=[,./_])/).flatMap((part) => [part, element("wbr")]));
}

// A table of cells: text, numbers as {number, text}, or nodes. The first column is the row's name.
function tableOf(caption, titles, rows) {
  const isNumber = (value) => value !== null && typeof value === "object" && !(value instanceof Node);
  const cell = (value, place) => {
    const is = isNumber(value);
    return element(
      place === 0 ? "th" : "td",
      { className: is ? `number ${value.className || ""}` : "", ...(place === 0 ? { scope: "row" } : {}) },
      is ? value.text : typeof value === "string" && value.length > 20 ? breakable(value) : value,
    );
  };
  return element(
    "div",
    { className: "wide" },
    element(
      "table",
      {},
      element("caption", {}, caption),
      element(
        "thead",
        {},
        element(
          "tr",
          {},
          ...titles.map((title, place) =>
            element("th", { scope: "col", className: isNumber(rows[0]?.[place]) ? "number" : "" }, title),
          ),
        ),
      ),
      element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map(cell)))),
    ),
  );
}

function showNotes() {
  const apart = page.runs.filter((run) => run.apart),
    faulty = page.runs.filter((run) => run.faults.length);
  if (!apart.length && !faulty.length) return;
  byId("notes").hidden = false;
  const holder = byId("notes").querySelector("div");
  if (apart.length)
    holder.append(
      tableOf(
        "Measured on something else than the others: these runs are shown, but take no part in fronts and effects.",
        ["run", "why"],
        apart.map((run) => [run.name, run.apart]),
      ),
    );
  if (faulty.length)
    holder.append(
      tableOf(
        "Files that could not be read; the rest of these runs is used.",
        ["run", "what"],
        faulty.map((run) => [run.name, run.faults.join("; ")]),
      ),
    );
}

function showDifferences() {
  const holder = byId("differences").querySelector("div");
  if (!page.axes.length)
    return holder.append(
      element(
        "p",
        {},
        page.runs.length === 1 ? "There is one run." : "The configs of all runs are the same, but for the seed.",
      ),
    );
  const rows = page.axes.map((axis, place) => {
    const counts = new Map();
    for (const run of page.runs) {
      const value = run.axes[place];
      if (value !== null) counts.set(value, (counts.get(value) || 0) + 1);
    }
    const shown = [...counts]
      .slice(0, 16)
      .map(([value, count]) =>
        element(
          "span",
          { className: "value", title: `${count} runs` },
          `${value} `,
          element("span", { className: "dim" }, `×${count}`),
        ),
      );
    if (counts.size > 16) shown.push(`and ${counts.size - 16} more`);
    return [
      axis.name,
      element("span", {}, ...shown),
      axis.also.slice(0, 6).join(", ") + (axis.also.length > 6 ? ` and ${axis.also.length - 6} more` : ""),
      ...(page.trials ? [{ text: axis.importance === null ? "" : `${Math.round(100 * axis.importance)} %` }] : []),
    ];
  });
  const importance = `Importance: its share of what separates the best of ${page.trials} trials from the others (PED-ANOVA).`;
  holder.append(
    tableOf(
      `Settings that are not the same in all runs, and how many runs have each value. ${page.trials ? importance : ""}`,
      ["setting", "values", "differs with it", ...(page.trials ? ["importance"] : [])],
      rows,
    ),
  );
}

// Jobs that may still complete.
function isDue(run) {
  return run.status === "running" || run.status === "not started";
}

function showFailed() {
  const bad = page.runs.filter((run) => run.status !== "completed" && !isDue(run));
  if (!bad.length) return;
  byId("failed").hidden = false;
  byId("failed")
    .querySelector("div")
    .append(
      tableOf(
        `${bad.length} of ${page.runs.length} runs.`,
        ["run", "status", "steps", "why"],
        bad.map((run) => [run.name, run.status, { text: number(run.steps) }, run.reason || ""]),
      ),
    );
}

function showFront(metric, cost, front) {
  const holder = byId("cost-front");
  holder.replaceChildren();
  if (front.length)
    holder.append(
      tableOf(
        "Pareto front of all completed runs: none is better at this cost or less.",
        ["run", metric.name, cost.name],
        front.map((run) => [
          run.name,
          { text: metricText(metric, run.metrics[metric.name]) },
          { text: costText(cost, run.costs[cost.key]) },
        ]),
      ),
    );
}

function showEffects(metric) {
  const effects = page.effects[metric.name] || [],
    holder = byId("effects").querySelector("div");
  holder.replaceChildren();
  if (!effects.length)
    return holder.append(element("p", {}, "No two completed runs differ in one setting only and have the same seed."));
  const reach = Math.max(...effects.flatMap((e) => [e.difference, ...(e.interval || [])].map(Math.abs))) || 1;
  const rows = effects.map((effect) => {
    const { difference, interval } = effect,
      clear = interval && (interval[0] > 0 || interval[1] < 0);
    const className = clear ? (difference > 0 === metric.higher ? "better" : "worse") : "";
    const range = interval ? `${signed(interval[0])} to ${signed(interval[1])}` : "";
    return [
      `${effect.axis}: ${effect.value}`,
      effect.reference,
      { text: signed(difference), className },
      { text: range },
      { text: effect.seeds },
      { text: effect.pairs },
      intervalMark(difference, interval, reach),
    ];
  });
  holder.append(
    tableOf(
      `Change of ${metricTitle(metric)}`,
      ["setting", "against", "difference", "95 % interval", "seeds", "pairs", ""],
      rows,
    ),
  );
}
function signed(value) {
  return (value > 0 ? "+" : "") + number(value);
}

function intervalMark(difference, interval, reach) {
  const space = "http://www.w3.org/2000/svg",
    svg = document.createElementNS(space, "svg"),
    x = (value) => 80 + (74 * value) / reach;
  const add = (name, attributes) => {
    const made = document.createElementNS(space, name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    svg.append(made);
  };
  for (const [key, value] of Object.entries({ width: 160, height: 14, class: "interval", "aria-hidden": "true" }))
    svg.setAttribute(key, value);
  add("line", { class: "zero", x1: x(0), x2: x(0), y1: 0, y2: 14 });
  if (interval) add("line", { x1: x(interval[0]), x2: x(interval[1]), y1: 7, y2: 7, "stroke-width": 2 });
  add("circle", { cx: x(difference), cy: 7, r: 3.5 });
  return svg;
}

function showPair(a, b) {
  const holder = byId("pair").querySelector("div");
  holder.replaceChildren();
  const differing = (of) =>
    [...new Set([...Object.keys(of(a)), ...Object.keys(of(b))])]
      .filter((key) => of(a)[key] !== of(b)[key])
      .map((key) => [key, of(a)[key] ?? "", of(b)[key] ?? ""]);
  if (a === b) return holder.append(element("p", {}, "Choose two runs."));
  if (a.apart !== b.apart)
    holder.append(element("p", { className: "bad" }, `Their metrics cannot be compared: ${a.apart || b.apart}`));
  const settings = differing((run) => run.config),
    machine = differing((run) => run.environment);
  holder.append(
    settings.length
      ? tableOf("Settings that differ", ["setting", "A", "B"], settings)
      : element(
          "p",
          {},
          a.known && b.known ? "Their configs are the same." : "Not both have a config that can be read.",
        ),
  );
  const metrics = page.metrics
    .filter((m) => m.name in a.metrics || m.name in b.metrics)
    .map((m) => {
      const [x, y] = [a.metrics[m.name], b.metrics[m.name]],
        both = x !== undefined && y !== undefined,
        range = (run) =>
          run.intervals[m.name] ? ` (${run.intervals[m.name].map((v) => metricText(m, v)).join(" to ")})` : "";
      return [
        metricTitle(m),
        { text: metricText(m, x) + range(a) },
        { text: metricText(m, y) + range(b) },
        { text: both ? changeText(m, y - x) : "" },
      ];
    });
  if (metrics.length)
    holder.append(
      tableOf("Metrics; in brackets the 95 % interval over validation rows", ["metric", "A", "B", "B − A"], metrics),
    );
  const costs = page.costs
    .filter((c) => a.costs[c.key] || b.costs[c.key])
    .map((c) => {
      const [x, y] = [a.costs[c.key], b.costs[c.key]];
      return [
        c.name,
        { text: costText(c, x) },
        { text: costText(c, y) },
        { text: x && y ? `${+(y / x).toPrecision(3)} ×` : "" },
      ];
    });
  if (costs.length) holder.append(tableOf("Costs", ["cost", "A", "B", "B / A"], costs));
  if (machine.length) holder.append(tableOf("Versions and machine that differ", ["what", "A", "B"], machine));
}
