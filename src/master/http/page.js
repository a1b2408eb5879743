// The page of the swarm. All that nodes report is set as text, never as markup.

import { chart } from "./chart.js";
import { bytes, count, percent, rate, time } from "./words.js";

// The overview is small. The list of nodes is not: beyond a thousand nodes it is fetched less often.
const OVERVIEW_MS = 1000;
const NODES_MS = { least: 1000, most: 15000 };
const TIMEOUT_MS = 20000;
// More rows make a browser slow. Sorting and filtering see all nodes.
const MOST_ROWS = 1500;
// Cells are large up to the first number of nodes, and small beyond the second.
const CELLS = { few: 400, many: 2500 };
// How a node reports another one that it does not fetch from any longer: `ADDRESS:PORT: WHY`.
const ABOUT_ANOTHER = /^[\d.[\]a-f:]+:\d+: /i;

const by = (id) => document.getElementById(id);

// Leaves what has not changed alone, so that nothing flickers and selections stay.
const set = (element, text) => {
  if (element.textContent !== text) element.textContent = text;
};

// Gives `parent` one child per item, and keeps the children that it has.
const fill = (parent, items, make, change) => {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  while (parent.children.length < items.length) parent.append(make());
  items.forEach((item, i) => change(parent.children[i], item));
};

const make = (name, ...children) => {
  const element = document.createElement(name);
  element.append(...children);
  return element;
};

// ---- figures and charts

const drawRates = chart(by("rates"), {
  series: [
    { list: "received_bytes_per_s", name: "received", says: "received by nodes", area: true },
    { list: "sent_bytes_per_s", name: "sent", says: "sent by this server" },
  ],
  format: rate,
  base: 1024,
  least: 1 << 20,
});

const drawCounts = chart(by("counts"), {
  series: [
    { list: "whole", name: "whole", says: "whole", area: true },
    { list: "nodes", name: "all", says: "in all" },
  ],
  format: String,
  base: Infinity,
  least: 4,
});

const drawFigures = (now) => {
  const share = now.wanted_chunks > 0 ? now.held_chunks / now.wanted_chunks : NaN;
  const sentByNodes = Math.max(0, now.received_bytes - now.sent_bytes);
  const figures = [
    [now.nodes, now.nodes === 1 ? "node" : "nodes"],
    [now.whole, "whole"],
    [now.fetching, "fetching"],
    [now.stalled, "stalled", now.stalled > 0],
    [now.left >= now.left_limit ? `${now.left}+` : now.left,
      `left before ${now.left === 1 ? "it was" : "they were"} whole`, now.left > 0],
    [percent(share), "share of the image"],
    [time(now.seconds_left ?? NaN), "until all nodes are whole"],
    [rate(now.received_bytes_per_s), "received by nodes"],
    [rate(now.sent_bytes_per_s), "sent by this server"],
    [bytes(now.sent_bytes), "sent by this server so far"],
    [bytes(sentByNodes), "sent by nodes so far"],
    [now.only_here, `${now.only_here === 1 ? "chunk" : "chunks"} not on any node yet`],
  ];
  fill(by("figures"), figures, () => make("div", make("dt"), make("dd")), (div, [value, label, trouble]) => {
    set(div.firstElementChild, label);
    set(div.lastElementChild, String(value));
    div.classList.toggle("trouble", Boolean(trouble));
  });
  set(by("image"), `serves ${bytes(now.image_bytes)} in ${count(now.chunks, "chunk")} of ` +
    `${bytes(now.chunk_bytes)}, generation ${String(now.generation).slice(0, 16)}`);
  document.title = `${now.whole} of ${count(now.nodes, "node")} whole – xget`;
};

// ---- nodes

const understood = (words, server, log) => {
  const [held, wanted] = Array.isArray(words.held) ? words.held : [0, 0];
  const node = String(words.node ?? words.gone);
  const [whole, stalled, gone] = ["whole", "stalled", "gone"].map((state) => words.state === state);
  const said = log.get(node);
  const told = said && `${said.text} (${time(said.seconds)} ago)`;
  const own = said !== undefined && !ABOUT_ANOTHER.test(said.text);
  const quiet = time(words.quiet_seconds);
  const seen = stalled ? `no data for ${quiet}` : gone ? `gone for ${quiet}` : "";
  const came = held * server.chunk_bytes;
  return {
    node,
    share: wanted > 0 ? held / wanted : 0,
    problem: [seen, told].filter(Boolean).join("; "),
    subnet: words.subnet ?? "–",
    state: words.state ?? "–",
    whole,
    bad: stalled || gone || (own && !whole),
    in: whole ? NaN : words.in_bytes_per_s,
    out: words.out_bytes_per_s,
    from: came > 0 ? Math.min(words.sent_bytes / came, 1) : NaN,
    sources: words.sources > 0 ? words.sources : NaN,
    seconds: words.seconds,
  };
};

const COLUMNS = [
  { key: "node", head: "Node", text: true, show: (n) => n.node },
  { key: "subnet", head: "Subnet", text: true, show: (n) => n.subnet },
  { key: "state", head: "State", text: true, show: (n) => n.state },
  { key: "share", head: "Held", show: (n) => percent(n.share) },
  { key: "in", head: "In", show: (n) => rate(n.in) },
  { key: "out", head: "Out", show: (n) => rate(n.out) },
  { key: "from", head: "By master", show: (n) => percent(n.from) },
  { key: "sources", head: "Sources", show: (n) => (Number.isFinite(n.sources) ? String(n.sources) : "–") },
  { key: "seconds", head: "Joined", show: (n) => time(n.seconds) },
  { key: "problem", head: "Last problem", text: true, show: (n) => n.problem },
];

// Without a column to sort by, nodes in trouble come first, then those that have least.
let sorted = { key: null, up: true };
let nodes = [];
let nodesMs = NODES_MS.least;

const natural = new Intl.Collator("en", { numeric: true });
const compare = (a, b) => {
  const { key, up } = sorted;
  if (key === null) return b.bad - a.bad || a.share - b.share || natural.compare(a.node, b.node);
  const [x, y] = [a[key], b[key]];
  const order = typeof x === "string" ? natural.compare(x, y) : (x ?? NaN) - (y ?? NaN) || 0;
  return (up ? order : -order) || natural.compare(a.node, b.node);
};

// Cells are in the order of addresses: a node keeps its cell, and a rack is a block.
const drawGrid = () => {
  const cells = [...nodes].sort((a, b) => natural.compare(a.node, b.node));
  const shade = (n) => (n.share > 0 ? `s${Math.max(1, Math.floor(n.share * 10))}` : "");
  by("grid").className = cells.length <= CELLS.few ? "few" : cells.length > CELLS.many ? "many" : "";
  fill(by("grid"), cells, () => make("span"), (cell, n) => {
    const name = `cell ${n.bad ? "bad" : n.whole ? "whole" : shade(n)}`;
    if (cell.className !== name) cell.className = name;
    const title = `${n.node}: ${percent(n.share)}${n.problem ? `, ${n.problem}` : ""}`;
    if (cell.title !== title) cell.title = title;
  });
  by("nobody").hidden = cells.length > 0;
};

const drawTable = () => {
  const wanted = by("filter").value.trim().toLowerCase();
  const matches = (n) => [n.node, n.subnet, n.state, n.problem].some((t) => t.toLowerCase().includes(wanted));
  const found = nodes.filter(matches).sort(compare);
  const rows = found.slice(0, MOST_ROWS);
  const makeRow = () => make("tr", ...COLUMNS.map((column) => {
    const cell = make("td");
    cell.className = `${column.key} ${column.text ? "text" : ""}`;
    return cell;
  }));
  fill(document.querySelector("tbody"), rows, makeRow, (row, n) => {
    row.classList.toggle("bad", n.bad);
    COLUMNS.forEach((column, i) => set(row.children[i], column.show(n)));
  });
  const shown = rows.length < nodes.length ? `${rows.length} of ${count(nodes.length, "node")}` : "";
  const pace = nodesMs > NODES_MS.least ? `updated every ${time(nodesMs / 1000)}` : "";
  set(by("shown"), [shown, pace].filter(Boolean).join(", "));
};

const drawHeads = () => {
  fill(document.querySelector("thead tr"), COLUMNS, () => make("th", make("button")), (head, column) => {
    set(head.firstElementChild, column.head);
    head.className = `${column.key} ${column.text ? "text" : ""}`;
    const order = sorted.key !== column.key ? "none" : sorted.up ? "ascending" : "descending";
    head.setAttribute("aria-sort", order);
    head.firstElementChild.type = "button";
    head.firstElementChild.onclick = () => {
      // A third click restores the order without a column.
      sorted = sorted.key !== column.key ? { key: column.key, up: true }
        : sorted.up ? { key: column.key, up: false } : { key: null, up: true };
      drawHeads();
      drawTable();
    };
  });
};

// ---- updates

let answered = Date.now();
const problems = new Map();

const ask = async (file) => {
  const answer = await fetch(file, { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
  return answer.json();
};

const lookAtOverview = async () => {
  const now = await ask("overview.json");
  drawFigures(now);
  drawRates(now.history);
  drawCounts(now.history);
};

const lookAtNodes = async () => {
  const { server, nodes: lines, log: said } = await ask("status.json");
  // A later line of the same node replaces an earlier one.
  const log = new Map(said.map((line) => [String(line.log), { ...line, text: String(line.text) }]));
  nodes = lines.filter((words) => (words.node ?? words.gone) !== undefined).map((words) => understood(words, server, log));
  nodesMs = Math.min(Math.max(nodes.length, NODES_MS.least), NODES_MS.most);
  drawGrid();
  drawTable();
};

// Calls `look` every `pauseMs()` while the page is visible, and at once when it becomes visible.
const watch = (look, pauseMs) => {
  let timer = 0;
  let busy = false;
  const run = async () => {
    if (busy) return;
    clearTimeout(timer);
    busy = true;
    try {
      if (!document.hidden) {
        await look();
        answered = Date.now();
        problems.delete(look);
      }
    } catch (error) {
      problems.set(look, error.message);
    }
    busy = false;
    const [why] = problems.values();
    const age = time((Date.now() - answered) / 1000);
    set(by("problem"), why ? `This server does not answer (${why}). The page shows the state of ${age} ago.` : "");
    timer = setTimeout(run, pauseMs());
  };
  document.addEventListener("visibilitychange", run);
  run();
};

document.querySelector("form").onsubmit = (event) => event.preventDefault();
by("filter").oninput = drawTable;
drawHeads();
watch(lookAtOverview, () => OVERVIEW_MS);
watch(lookAtNodes, () => nodesMs);
