"use strict";
// Sorting, filtering, opening rows, bringing one method forward, LaTeX of chosen columns. Without it the page can be read whole.

const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const boards = all(".board");
const filters = document.getElementById("filters");
const LEVEL = 0.05;

for (const part of all(".scripted")) part.hidden = false;
for (const board of boards) prepare(board);
filters.addEventListener("input", filter);
filters.addEventListener("submit", event => event.preventDefault());
filters.addEventListener("reset", () => setTimeout(filter));
filter();
addEventListener("hashchange", openAddressed);
openAddressed();

function prepare(board) {
  const table = board.querySelector(".ranking");
  board.querySelector(".each").hidden = true;
  all("thead th", table).forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sort(board, table, head, column));
  });
  for (const row of all("tbody tr", table)) {
    row.querySelector("a.name").setAttribute("aria-expanded", "false");
    row.addEventListener("click", event => {
      const link = event.target.closest("a");
      if (link && !link.classList.contains("name")) return;
      event.preventDefault();
      toggle(row);
    });
    row.addEventListener("pointerenter", event => { if (event.pointerType === "mouse") bringForward(board, row.id); });
    row.addEventListener("pointerleave", () => bringForward(board, board.dataset.pinned ?? ""));
  }
  for (const chip of all(".chip", board)) {
    chip.setAttribute("aria-pressed", "false");
    chip.addEventListener("click", () => pin(board, chip.dataset.front));
    chip.addEventListener("pointerenter", () => bringForward(board, chip.dataset.front));
    chip.addEventListener("pointerleave", () => bringForward(board, board.dataset.pinned ?? ""));
  }
  for (const line of all(".curves .lines path", board)) line.addEventListener("click", () => pin(board, line.dataset.of));
  for (const cell of all(".heat tbody td[title]", board)) {
    cell.addEventListener("click", () => { cell.closest("details").querySelector(".said").textContent = cell.title; });
  }
  const latex = board.querySelector(".latex");
  latex.addEventListener("change", () => writeLatex(board));
  latex.querySelector(".copy").addEventListener("click", event => copy(latex.querySelector("pre"), event.target));
}

// Sorting. Start and set-apart rows keep their places above and below; what has no value stands last either way.

function sort(board, table, head, column) {
  const heads = all("thead th", table);
  const before = head.getAttribute("aria-sort");
  const falling = column > 0 && head.dataset.better !== "-1";
  const next = before === null ? (falling ? "descending" : "ascending") : before === "ascending" ? "descending" : "ascending";
  for (const other of heads) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", next);
  const sign = next === "ascending" ? 1 : -1;
  for (const body of table.tBodies) {
    const rows = all(":scope > tr:not(.more)", body);
    rows.sort((a, b) => compare(key(a, column), key(b, column), sign));
    for (const row of rows) {
      body.append(row);
      const more = openedRow(row);
      if (more) row.after(more);
    }
  }
  writeLatex(board);
}

function key(row, column) {
  const cell = row.cells[column];
  const text = cell.dataset.v ?? cell.textContent.trim();
  if (text === "" || (cell.dataset.v === undefined && text === "not run")) return null;
  const number = column === 0 || cell.dataset.v === undefined ? NaN : Number(text);
  return Number.isNaN(number) ? text : number;
}

function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a === "number" && typeof b === "number") return sign * (a - b);
  return sign * String(a).localeCompare(String(b), "en", {numeric: true});
}

// Filtering.

function filter() {
  const wanted = Object.fromEntries(new FormData(filters));
  let shown = 0, of = 0;
  for (const board of boards) {
    const fits = (!wanted.family || board.dataset.family === wanted.family)
      && (!wanted.scale || board.dataset.scale === wanted.scale)
      && (!wanted.benchmark || JSON.parse(board.dataset.tasks).includes(wanted.benchmark));
    const rows = all(".ranking tbody tr:not(.more)", board);
    let left = 0;
    for (const row of rows) {
      const start = row.classList.contains("start");
      row.hidden = !start && !passes(row, wanted);
      if (row.hidden) close(row);
      left += !start && !row.hidden;
      of += !start;
    }
    board.hidden = !fits || (left === 0 && rows.some(row => row.hidden));
    if (!board.hidden) shown += left;
    for (const cell of all(".ranking [data-task]", board)) {
      cell.hidden = Boolean(wanted.benchmark) && cell.dataset.task !== wanted.benchmark;
    }
    follow(board);
    mark(board);
    writeLatex(board);
  }
  document.getElementById("count").textContent = shown === of ? `${of} rows` : `${shown} of ${of} rows`;
  document.querySelector(".nothing").hidden = boards.some(board => !board.hidden);
}

function passes(row, wanted) {
  return (!wanted.kind || row.dataset.kind === wanted.kind)
    && (!wanted.source || row.dataset.source === wanted.source)
    && (!wanted.seeds || Number(row.dataset.seeds) >= Number(wanted.seeds))
    && (!wanted.name || row.cells[0].textContent.toLowerCase().includes(wanted.name.trim().toLowerCase()));
}

/** What else on the board speaks of a method is there when its row is. */
function follow(board) {
  const hidden = new Set(all(".ranking tbody tr[hidden]", board).map(row => row.id));
  for (const part of all(".heat [data-of], .curves .lines path", board)) part.classList.toggle("away", hidden.has(part.dataset.of));
  for (const chip of all(".chip", board)) chip.hidden = hidden.has(chip.dataset.front);
}

// The best of what is shown, and the scores that its paired differences leave level with it.

function mark(board) {
  const table = board.querySelector(".ranking");
  const rows = all("tbody.ranked tr:not(.more):not([hidden])", table);
  for (const cell of all(".best, .level", table)) cell.classList.remove("best", "level");
  all("thead th", table).forEach((head, column) => {
    const better = Number(head.dataset.better ?? 0);
    if (!better) return;
    const found = rows.map(row => [row, key(row, column)]).filter(([, value]) => typeof value === "number");
    if (found.length < 2) return;
    const top = found.reduce((best, [, value]) => better * value > better * best ? value : best, found[0][1]);
    if (found.every(([, value]) => value === top)) return;
    for (const [row, value] of found) if (value === top) row.cells[column].classList.add("best");
    if (head.classList.contains("score")) markLevel(board, found, found.find(([, value]) => value === top)[0], column);
  });
}

function markLevel(board, found, best, column) {
  for (const [row] of found) {
    const cell = board.querySelector(`.heat tr[data-of="${best.id}"] td[data-of="${row.id}"]`);
    if (row !== best && cell && !(Number(cell.dataset.p ?? 1) < LEVEL)) row.cells[column].classList.add("level");
  }
}

// Rows that open.

function openedRow(row) {
  return document.getElementById(`${row.id}-more`);
}

function toggle(row) {
  const more = openedRow(row);
  if (more && !more.hidden) close(row);
  else open(row);
}

function open(row) {
  let more = openedRow(row);
  if (!more) {
    more = document.createElement("tr");
    more.id = `${row.id}-more`;
    more.className = "more";
    const cell = more.insertCell();
    cell.colSpan = row.cells.length;
    cell.append(document.getElementById(`${row.id}-in`));
    row.after(more);
  }
  more.hidden = false;
  row.querySelector("a.name").setAttribute("aria-expanded", "true");
}

function close(row) {
  const more = openedRow(row);
  if (more) more.hidden = true;
  row.querySelector("a.name").setAttribute("aria-expanded", "false");
}

/** A link to a method's part opens its row. */
function openAddressed() {
  const row = document.getElementById(location.hash.slice(1).replace(/-in$/, ""));
  if (row?.matches(".ranking tbody tr") && !row.hidden) {
    open(row);
    row.scrollIntoView();
  }
}

// One method before the others.

function pin(board, id) {
  board.dataset.pinned = board.dataset.pinned === id ? "" : id;
  for (const chip of all(".chip", board)) chip.setAttribute("aria-pressed", String(chip.dataset.front === board.dataset.pinned));
  bringForward(board, board.dataset.pinned);
}

function bringForward(board, id) {
  const curves = board.querySelector(".curves");
  if (!curves) return;
  const lines = all(".lines path", curves);
  curves.classList.toggle("fronted", lines.some(line => line.dataset.of === id));
  for (const line of lines) line.classList.toggle("front", line.dataset.of === id);
  for (const chip of all(".chip", curves)) chip.classList.toggle("front", chip.dataset.front === id);
}

// LaTeX. Names were escaped for TeX when the page was made; numbers need no more than a minus and a percent sign.

function tex(cell) {
  return cell.dataset.tex ?? cell.textContent.trim().replaceAll("%", "\\%").replaceAll("±", "$\\pm$").replaceAll("×", "$\\times$");
}

function writeLatex(board) {
  const latex = board.querySelector(".latex");
  const chosen = [0, ...all(".pick input:checked", latex).map(box => Number(box.value))];
  const table = board.querySelector(".ranking");
  const heads = all("thead th", table);
  const columns = chosen.filter(column => !heads[column].hidden);
  const line = cells => {
    const text = cells.join(" & ") + " \\\\";
    return /^[[*]/.test(text) ? `{}${text}` : text;
  };
  const row = found => line(columns.map(column => {
    const cell = found.cells[column];
    return cell.classList.contains("best") ? `\\textbf{${tex(cell)}}` : tex(cell);
  }));
  const bodies = [...table.tBodies].map(body => all(":scope > tr:not(.more):not([hidden])", body).map(row)).filter(rows => rows.length);
  latex.querySelector("pre").textContent = [
    `\\begin{tabular}{l${"r".repeat(columns.length - 1)}}`, "\\toprule", line(columns.map(column => tex(heads[column]))), "\\midrule",
    ...bodies.flatMap((rows, i) => i ? ["\\midrule", ...rows] : rows), "\\bottomrule", "\\end{tabular}", "",
  ].join("\n");
}

function copy(pre, button) {
  const chosen = document.createRange();
  chosen.selectNodeContents(pre);
  getSelection().removeAllRanges();
  getSelection().addRange(chosen);
  navigator.clipboard?.writeText(pre.textContent).then(() => { button.textContent = "copied"; }, () => { button.textContent = "selected"; });
}
