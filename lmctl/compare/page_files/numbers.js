// Numbers as text: metrics, costs, and the marks of axes.

const OVER = { step: "steps", tokens: "tokens", seconds: "seconds", bytes: "bytes sent" };

function number(value) {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  return size !== 0 && (size >= 1e6 || size < 1e-3)
    ? value.toExponential(3)
    : size >= 1000
      ? value.toLocaleString("en", { maximumFractionDigits: 1 })
      : String(+value.toFixed(4));
}
function shortNumber(value) {
  for (const [size, mark] of [
    [1e12, "T"],
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
  ])
    if (Math.abs(value) >= size) return `${+(value / size).toPrecision(4)}${mark}`;
  return String(+value.toPrecision(4));
}
function bytes(value) {
  for (const [size, mark] of [
    [2 ** 40, "TiB"],
    [2 ** 30, "GiB"],
    [2 ** 20, "MiB"],
    [2 ** 10, "KiB"],
  ])
    if (Math.abs(value) >= size) return `${+(value / size).toPrecision(4)} ${mark}`;
  return `${value} B`;
}
// As on a terminal: 9.3s, 4m05s, 2h10m.
function seconds(value) {
  if (value < 60) return `${+value.toFixed(1)}s`;
  const whole = Math.round(value),
    two = (part) => String(part).padStart(2, "0");
  return whole < 3600
    ? `${Math.floor(whole / 60)}m${two(whole % 60)}s`
    : `${Math.floor(whole / 3600)}h${two(Math.floor((whole % 3600) / 60))}m`;
}
// Distances between the marks of an axis that make round numbers of seconds and of bytes.
const ROUND = {
  seconds: [
    0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18000, 36000, 86400, 172800, 864000,
  ],
  bytes: Array.from({ length: 60 }, (_, power) => 2 ** power),
};
function shortNumbers(u, values) {
  return values.map((value) => (value === null ? "" : shortNumber(value)));
}
function costNumbers(cost) {
  return (u, values) => values.map((value) => (value === null ? "" : costText(cost, value)));
}
function costText(cost, value) {
  if (value === null || value === undefined) return "";
  return cost.unit === "bytes" ? bytes(value) : cost.unit === "seconds" ? seconds(value) : shortNumber(value);
}
function metricText(metric, value) {
  if (value === null || value === undefined) return "";
  if (metric.share) return `${(100 * value).toFixed(2)} %`;
  const size = Math.abs(value);
  return size >= 1e-3 && size < 1000 ? value.toFixed(4) : number(value); // columns of equal digits
}
function changeText(metric, change) {
  const sign = change > 0 ? "+" : "";
  return metric.share ? `${sign}${(100 * change).toFixed(2)} points` : sign + metricText(metric, change);
}
function metricTitle(metric) {
  return `${metric.name} (${metric.higher ? "higher" : "lower"} is better)`;
}
