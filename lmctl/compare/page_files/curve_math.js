// Curves as numbers: smoothing, a common grid, means and bands over seeds. No drawing.

// Centred moving average; the window covers `share` percent of the points on either side and shrinks at both ends.
function smoothed(values, share) {
  const reach = Math.floor((values.length * share) / 100),
    last = values.length - 1,
    sums = [0];
  for (const value of values) sums.push(sums[sums.length - 1] + value);
  return values.map((_, place) => {
    const half = Math.min(reach, place, last - place);
    return (sums[place + half + 1] - sums[place - half]) / (2 * half + 1);
  });
}

// The points [x, y] of a run's curve, in order of x; without those that have no value, or no place on a logarithmic axis.
function pointsOf(curve, over, metric, logarithmic) {
  const xs = curve.at[over] || [],
    ys = curve.values[metric] || [],
    points = [];
  for (let i = 0; i < ys.length; i++)
    if (ys[i] !== null && (!logarithmic || xs[i] > 0) && !(points.length && xs[i] < points[points.length - 1][0]))
      points.push([xs[i], ys[i]]);
  return points;
}

// `count` places from `low` to `high`, evenly, or by equal factors.
function gridOf(low, high, count, logarithmic) {
  const part = (i) => i / (count - 1);
  return Array.from({ length: count }, (_, i) =>
    logarithmic ? low * (high / low) ** part(i) : low + (high - low) * part(i),
  );
}

// Points read off at the places of a grid, by straight lines between them; null outside.
function onGrid(points, grid) {
  let next = 0;
  return grid.map((x) => {
    if (!points.length || x < points[0][0] - 1e-9 * Math.abs(x) || x > points[points.length - 1][0] * (1 + 1e-9))
      return null;
    while (next < points.length - 1 && points[next][0] < x) next++;
    const [x1, y1] = points[next];
    if (x1 <= x || next === 0) return y1;
    const [x0, y0] = points[next - 1];
    return x1 === x0 ? y1 : y0 + ((y1 - y0) * (x - x0)) / (x1 - x0);
  });
}

// Mean, lowest and highest of several curves on one grid, where all of them have a value.
function bandOf(curves) {
  const at = (i) => {
    const found = curves.map((one) => one[i]);
    return found.includes(null) ? null : found;
  };
  const over = (f) =>
    curves[0].map((_, i) => {
      const found = at(i);
      return found && f(found);
    });
  return {
    mean: over((v) => v.reduce((a, b) => a + b, 0) / v.length),
    low: over((v) => Math.min(...v)),
    high: over((v) => Math.max(...v)),
  };
}

// The lowest and the highest value from a place of the grid on; null if there is none.
function rangeFrom(grid, curves, start) {
  let low = Infinity,
    high = -Infinity;
  for (const curve of curves)
    for (let i = 0; i < grid.length; i++)
      if (curve[i] !== null && grid[i] >= start) {
        low = Math.min(low, curve[i]);
        high = Math.max(high, curve[i]);
      }
  return low > high ? null : [low, high];
}

// Limits of the y axis. Without the first tenth of the run, in which losses fall steeply; and its second half, which
// runs are compared by, has a third of the height at least.
function heightOf(grid, curves, whole) {
  const last = grid[grid.length - 1],
    all = rangeFrom(grid, curves, -Infinity) || [0, 1];
  let [low, high] = (!whole && rangeFrom(grid, curves, 0.1 * last)) || all;
  const late = whole ? null : rangeFrom(grid, curves, 0.5 * last);
  if (late && late[1] > late[0]) {
    const most = 2 * (late[1] - late[0]);
    high = Math.min(high, late[1] + most);
    low = Math.max(low, late[0] - most);
  }
  const margin = 0.06 * (high - low) || 0.05 * Math.abs(high) || 0.05;
  return [low - margin, high + margin];
}
