// The swarm as it is, asked for again and again. Whatever nodes say becomes text, never markup.
"use strict";

const EVERY_MS = 1000;
// A browser is slow with more rows than anybody reads; sorting and filtering see all nodes.
const MOST_ROWS = 1500;

const by = (id) => document.getElementById(id);

const bytes = (n) => {
  if (!Number.isFinite(n)) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  for (; n >= 1024 && unit < units.length - 1; unit++) n /= 1024;
  return `${unit ? n.toFixed(1) : n} ${units[unit]}`;
};
const rate = (n) => `${bytes(n)}/s`;
const percent = (share) => `${Math.floor(share * 100)} %`;
const age = (s) => {
  if (!Number.isFinite(s)) return "–";
  if (s < 120) return `${Math.floor(s)} s`;
  return s < 7200 ? `${Math.floor(s / 60)} min` : `${Math.floor(s / 3600)} h`;
};

const understood = (words, server, log) => {
  const [held, wanted] = Array.isArray(words.held) ? words.held : [0, 0];
  const share = wanted > 0 ? held / wanted : 0;
  const whole = words.state === "whole";
  const stalled = words.state === "stalled";
  const gone = words.state === "gone";
  const node = String(words.node ?? words.gone);
  const said = log.get(node) ?? "";
  const seen = stalled ? "nothing" : gone ? "gone" : "";
  const trouble = [seen && `${seen} for ${age(words.quiet_seconds)}`, said].filter(Boolean).join("; ");
  const came = held * server.chunk_bytes;
  return {
    node, share, trouble,
    subnet: words.subnet ?? "–",
    state: words.state ?? "–",
    bad: stalled || gone || (said !== "" && !whole),
    in: whole ? NaN : words.in_bytes_per_s,
    out: words.out_bytes_per_s,
    from: came > 0 ? Math.min(words.sent_bytes / came, 1) : NaN,
    sources: words.sources,
    seconds: words.seconds,
    left: stalled ? NaN : words.seconds_left,
  };
};

const COLUMNS = [
  { key: "node", head: "Node", text: true, show: (n) => n.node },
  { key: "subnet", head: "Subnet", text: true, show: (n) => n.subnet },
  { key: "state", head: "State", text: true, show: (n) => n.state },
  { key: "share", head: "Share", show: (n) => percent(n.share) },
  { key: "in", head: "In", show: (n) => Number.isFinite(n.in) ? rate(n.in) : "–" },
  { key: "out", head: "Out", show: (n) => Number.isFinite(n.out) ? rate(n.out) : "–" },
  { key: "from", head: "From here", show: (n) => Number.isFinite(n.from) ? percent(n.from) : "–" },
  { key: "sources", head: "Sources", show: (n) => n.sources > 0 ? String(n.sources) : "–" },
  { key: "seconds", head: "Since", show: (n) => age(n.seconds) },
  { key: "trouble", head: "Last error", text: true, show: (n) => n.trouble },
];

// Troubled and slow ones first, until somebody sorts by a column.
let sorted = { key: null, up: true };
let nodes = [];

const natural = new Intl.Collator("en", { numeric: true });
const compare = (a, b) => {
  const { key, up } = sorted;
  if (key === null) return b.bad - a.bad || a.share - b.share || natural.compare(a.node, b.node);
  const [x, y] = [a[key], b[key]];
  const order = typeof x === "string" ? natural.compare(x, y) : (x ?? NaN) - (y ?? NaN) || 0;
  return (up ? order : -order) || natural.compare(a.node, b.node);
};

// Changes only what is another text by now, so that nothing flickers and selections stay.
const set = (element, text) => {
  if (element.textContent !== text) element.textContent = text;
};

// As many children as there are items, the old ones kept.
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

const drawSummary = (server) => {
  const count = (state) => nodes.filter((n) => n.state === state).length;
  const here = nodes.filter((n) => n.state !== "gone");
  const sum = (f) => here.reduce((total, n) => total + (Number.isFinite(f(n)) ? f(n) : 0), 0);
  const left = Math.max(...nodes.map((n) => n.left).filter(Number.isFinite));
  const share = here.length ? percent(sum((n) => n.share) / here.length) : "–";
  const facts = [
    ["nodes", String(here.length)], ["whole", String(count("whole"))],
    ["fetching", String(count("fetching"))], ["stalled", String(count("stalled"))],
    ["gone unfinished", String(count("gone"))],
    ["of all is there", share], ["until the last is whole", age(left)], ["come in", rate(sum((n) => n.in))],
    ["from here", rate(server.sent_bytes_per_s)], ["sent from here", bytes(server.sent_bytes)],
    ["chunks with no node yet", String(server.only_here ?? "–")],
  ];
  fill(by("summary"), facts, () => make("div", make("dt"), make("dd")), (div, [what, value]) => {
    set(div.firstElementChild, what);
    set(div.lastElementChild, value);
  });
  set(by("image"), `${bytes(server.image_bytes)} in ${(server.held ?? [0, 0])[1]} chunks of ` +
    `${bytes(server.chunk_bytes)}, generation ${String(server.generation).slice(0, 16)}`);
  document.title = `${share} of ${here.length} nodes – xget`;
};

// In the order of addresses, so that a node keeps its cell and a rack is a block.
const drawGrid = () => {
  const cells = [...nodes].sort((a, b) => natural.compare(a.node, b.node));
  fill(by("grid"), cells, () => make("span"), (cell, n) => {
    const colour = n.bad ? "stalled" : n.state === "whole" ? "whole" : n.share > 0 ? `s${Math.max(1, Math.floor(n.share * 10))}` : "empty";
    const name = `cell ${colour}`;
    if (cell.className !== name) cell.className = name;
    const title = `${n.node}: ${percent(n.share)}${n.trouble ? `, ${n.trouble}` : ""}`;
    if (cell.title !== title) cell.title = title;
  });
};

const drawTable = () => {
  const wanted = by("filter").value.trim().toLowerCase();
  const matches = (n) => [n.node, n.subnet, n.state, n.trouble].some((t) => t.toLowerCase().includes(wanted));
  const found = nodes.filter(matches).sort(compare);
  const rows = found.slice(0, MOST_ROWS);
  const makeRow = () => make("tr", ...COLUMNS.map((column) => {
    const cell = make("td");
    if (column.text) cell.className = "text";
    return cell;
  }));
  fill(by("nodes").tBodies[0], rows, makeRow, (row, n) =>
    COLUMNS.forEach((column, i) => set(row.children[i], column.show(n))));
  set(by("shown"), rows.length < nodes.length ? `${rows.length} of ${nodes.length}` : "");
};

const drawHeads = () => {
  fill(by("nodes").tHead.rows[0], COLUMNS, () => make("th", make("button")), (head, column) => {
    set(head.firstElementChild, column.head);
    if (column.text) head.className = "text";
    const order = sorted.key !== column.key ? "none" : sorted.up ? "ascending" : "descending";
    head.setAttribute("aria-sort", order);
    head.firstElementChild.type = "button";
    head.firstElementChild.onclick = () => {
      // A third click goes back to the usual order.
      sorted = sorted.key !== column.key ? { key: column.key, up: true }
        : sorted.up ? { key: column.key, up: false } : { key: null, up: true };
      drawHeads();
      drawTable();
    };
  });
};

const look = async () => {
  if (document.hidden) return;
  try {
    const answer = await fetch("status.json", { cache: "no-store" });
    if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
    const { server, nodes: lines, log: said } = await answer.json();
    // The last line of each counts.
    const log = new Map(said.map((line) => [String(line.log), `${line.text} (${age(line.seconds)} ago)`]));
    nodes = lines.filter((words) => (words.node ?? words.gone) !== undefined).map((words) => understood(words, server, log));
    drawSummary(server);
    drawGrid();
    drawTable();
    set(by("problem"), "");
  } catch (error) {
    set(by("problem"), `The master does not answer (${error.message}); what is shown is old.`);
  }
};

const lookAgain = async () => {
  await look();
  setTimeout(lookAgain, EVERY_MS);
};

document.querySelector("form").onsubmit = (event) => event.preventDefault();
by("filter").oninput = drawTable;
document.onvisibilitychange = look;
drawHeads();
lookAgain();
