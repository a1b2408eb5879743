// A chart of the latest samples as SVG. The newest sample is at the right edge.

import { time } from "./words.js";

// Minutes that a chart may span: it takes the first that holds all samples.
const WINDOWS = [2, 5, 10];
// Pixels around the curves, for the labels.
const LEFT = 72, RIGHT = 6, TOP = 18, BOTTOM = 20;

const svgElement = (name, attributes, text = "") => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
};

/** At most four equal steps from 0 to at least `most`, of a round size in units that are powers of `base`. */
const scale = (most, base) => {
  let unit = 1;
  while (most / unit >= base) unit *= base;
  const sizes = [0.25, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].map((n) => n * unit);
  const step = sizes.filter(Number.isInteger).find((size) => most / size <= 4) ?? most;
  const steps = Math.max(1, Math.ceil(most / step));
  return { top: step * steps, ticks: Array.from({ length: steps + 1 }, (_, i) => step * i) };
};

/** Where a history of `count` samples, one `every` so many seconds, lies in an `svg`; values go up to `top`. */
const layout = (svg, count, every, top) => {
  const minutes = WINDOWS.find((window) => count <= (window * 60) / every) ?? WINDOWS.at(-1);
  const [width, height] = [svg.clientWidth, svg.clientHeight];
  const [right, bottom] = [width - RIGHT, height - BOTTOM];
  const span = minutes * 60 - every;
  const ago = (i) => (count - 1 - i) * every;
  const x = (seconds) => Math.max(LEFT, right - (seconds / span) * (right - LEFT));
  const y = (value) => bottom - (value / top) * (bottom - TOP);
  const sampleAt = (px) => count - 1 - Math.round((((right - px) / (right - LEFT)) * span) / every);
  return { minutes, width, height, right, bottom, ago, x, y, sampleAt };
};

const axes = ({ minutes, width, height, right, x, y }, ticks, format) => {
  const parts = [];
  for (const tick of ticks) {
    parts.push(svgElement("line", { class: "rule", x1: LEFT, x2: right, y1: y(tick), y2: y(tick) }));
    const place = { x: LEFT - 8, y: y(tick), "text-anchor": "end", "dominant-baseline": "middle" };
    parts.push(svgElement("text", place, tick === 0 ? "0" : format(tick).replace(".0 ", " ")));
  }
  const apart = minutes < 10 ? 1 : width < 420 ? 5 : 2;
  for (let minute = 0; minute <= minutes; minute += apart) {
    const [anchor, words] = minute === 0 ? ["end", "now"]
      : minute === minutes ? ["start", `${minute} min ago`] : ["middle", `${minute} min`];
    parts.push(svgElement("text", { x: x(minute * 60), y: height - 4, "text-anchor": anchor }, words));
  }
  return parts;
};

const upright = (name, at, bottom) => svgElement("line", { class: name, x1: at, x2: at, y1: TOP, y2: bottom });

/** The curve of a list, and the area below it if that is filled. A missing sample interrupts both. */
const curve = ({ ago, x, y, bottom }, list, { name, area }) => {
  const runs = [[]];
  list.forEach((value, i) => {
    if (value === null) runs.push([]);
    else runs.at(-1).push([x(ago(i)).toFixed(1), y(value).toFixed(1)]);
  });
  const drawn = runs.filter((run) => run.length > 0);
  const path = (kind, d) => svgElement("path", { class: `${kind} ${name}`, d: drawn.map(d).join("") });
  return [
    ...(area ? [path("area", (run) => `M${run[0][0]},${bottom}L${run.join("L")}V${bottom}Z`)] : []),
    path("curve", (run) => `M${run.join("L")}h.1`),
  ];
};

/**
 * Makes a chart in a `figure` that has an `svg` and for each series a `b` for its value: the newest, or that at
 * the time that is pointed at. `spec` has `series`, a list of `{ list, name, says, area }` (the list in the
 * history, the series' class and words, whether the area below is filled), `format` for values, `base` of
 * their units, and `least`, the smallest top of the scale. Returns what draws a history.
 */
export const chart = (figure, spec) => {
  const svg = figure.querySelector("svg");
  let history = null;
  let pointer = null;

  const draw = () => {
    if (history === null) return;
    const lists = spec.series.map(({ list }) => history[list]);
    const newest = lists[0].length - 1;
    const { top, ticks } = scale(Math.max(spec.least, ...lists.flat()), spec.base);
    const place = layout(svg, lists[0].length, history.every_seconds, top);
    const { minutes, width, height, right, bottom, ago, x } = place;
    const parts = axes(place, ticks, spec.format);
    history.changed.forEach((changed, i) => {
      if (!changed) return;
      const mark = upright("mark", x(ago(i)), bottom);
      mark.append(svgElement("title", {}, "The served files changed"));
      parts.push(mark);
    });
    spec.series.forEach((series, n) => parts.push(...curve(place, lists[n], series)));

    const pointed = pointer === null ? newest : place.sampleAt(pointer);
    const read = Number.isFinite(lists[0][pointed]) ? pointed : newest;
    if (pointer !== null && read === pointed) {
      const at = x(ago(read));
      const then = { class: "then", x: Math.min(at, right - 24), y: TOP - 6, "text-anchor": "middle" };
      parts.push(upright("hair", at, bottom), svgElement("text", then, `${time(ago(read))} ago`));
    }
    spec.series.forEach(({ name }, n) => {
      figure.querySelector(`figcaption .${name} b`).textContent = spec.format(lists[n][read]);
    });
    const now = spec.series.map(({ says }, n) => `${spec.format(lists[n][newest])} ${says}`).join(", ");
    const peak = spec.format(Math.max(0, ...lists[0]));
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("aria-label", `The last ${minutes} minutes. Now: ${now}. ` +
      `At most ${peak} ${spec.series[0].says}.`);
    svg.replaceChildren(...parts);
  };

  svg.onpointermove = (event) => {
    pointer = event.offsetX;
    draw();
  };
  svg.onpointerleave = () => {
    pointer = null;
    draw();
  };
  new ResizeObserver(draw).observe(svg);
  return (latest) => {
    history = latest;
    draw();
  };
};
