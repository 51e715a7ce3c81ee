// The table of all runs: sorted, filtered, and with boxes that say which runs are plotted.

// Columns with what they are sorted by.
function runColumns() {
  const swept =
    page.axes.length && page.axes.length <= 8
      ? page.axes.map((axis, place) => ({ title: axis.name, of: (run) => run.axes[place], text: (v) => v ?? "" }))
      : [];
  const measures = page.metrics.map((m) => ({
    title: m.name,
    numeric: true,
    of: (run) => run.metrics[m.name],
    text: (v) => metricText(m, v),
  }));
  const costs = page.costs
    .filter((c) => page.runs.some((run) => run.costs[c.key]))
    .map((c) => ({ title: c.name, numeric: true, of: (run) => run.costs[c.key], text: (v) => costText(c, v) }));
  return [
    { title: "run", of: (run) => run.name, text: (v) => v },
    { title: "status", of: (run) => run.status, text: (v) => v },
    ...swept,
    {
      title: "seed",
      numeric: true,
      of: (run) => (run.seed === null ? undefined : Number(run.seed)),
      text: (v) => v ?? "",
    },
    { title: "steps", numeric: true, of: (run) => run.steps, text: number },
    ...measures,
    ...costs,
  ];
}

function sortedRuns(runs, column, descending) {
  const missing = (value) => value === undefined || value === null;
  return [...runs].sort((a, b) => {
    const [x, y] = [column.of(a), column.of(b)];
    if (missing(x) || missing(y)) return missing(x) - missing(y);
    const order = column.numeric ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
    return descending ? -order : order;
  });
}

function table() {
  const columns = runColumns(),
    column = columns.find((one) => one.title === state.sort),
    passing = page.runs.filter(passes);
  const runs = column ? sortedRuns(passing, column, state.descending) : passing;
  const head = columns.map((one) => {
    const sorted = one.title === state.sort ? (state.descending ? "descending" : "ascending") : "none";
    const button = element("button", { type: "button" }, one.title);
    button.onclick = () => {
      state.descending = state.sort === one.title && !state.descending ? "yes" : "";
      state.sort = one.title;
      keep();
      table();
      [...byId("runs").querySelectorAll("thead button")].find((other) => other.textContent === one.title).focus();
    };
    return element(
      "th",
      { scope: "col", className: one.numeric ? "number" : "", attributes: { "aria-sort": sorted } },
      button,
    );
  });
  const body = runs.map((run) => {
    const box = element("input", {
      type: "checkbox",
      checked: !off.has(run.place),
      attributes: { "aria-label": `plot ${run.name}` },
    });
    box.onchange = () => {
      if (box.checked) off.delete(run.place);
      else off.add(run.place);
      keep();
      shown();
      curves();
      costs();
    };
    const cells = columns.map((one, place) => {
      const bad = one.title === "status" && run.status !== "completed" && !isDue(run),
        text = one.text(one.of(run));
      return element(
        place ? "td" : "th",
        {
          className: `${one.numeric ? "number" : ""} ${bad ? "bad" : ""}`,
          title: bad ? run.reason || "" : place ? "" : run.folder,
          ...(place ? {} : { scope: "row" }),
        },
        place ? text : breakable(text),
        place === 0 && run.apart ? element("span", { className: "dim" }, " (not comparable)") : "",
      );
    });
    return element("tr", {}, element("td", {}, box), ...cells);
  });
  byId("runs")
    .querySelector("div")
    .replaceChildren(
      element(
        "table",
        {},
        element("caption", {}, "Press a title to sort. The box says whether a run is plotted."),
        element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "plot"), ...head)),
        element("tbody", {}, ...body),
      ),
    );
}
function shown() {
  const count = shownRuns().length;
  byId("shown").textContent = count === page.runs.length ? "" : `${count} of ${page.runs.length} runs shown`;
}
