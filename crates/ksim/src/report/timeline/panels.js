// Beside the chart: the selected step in full, and the list of all steps.

const ROW_HEIGHT = 24;
/** Browsers draw no element that is higher than this. */
const HIGHEST = 8_000_000;

const detail = document.getElementById("detail");
const list = document.getElementById("list");
const listSpacer = document.getElementById("list-spacer");

/** An element with its content: text, or other elements. */
function element(tag, attributes = {}, ...content) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick") made.addEventListener("click", value);
    else made.setAttribute(name, value);
  }
  made.append(...content.filter((part) => part !== null && part !== ""));
  return made;
}

/** A text that may be broken behind each underscore. */
const breakable = (text) => text.split(/(?<=_)/).flatMap((part, index) => (index ? [element("wbr"), part] : [part]));

const heading = (text) => element("h3", {}, text);

function values(pairs) {
  const shown = pairs.filter(([, value]) => value !== "" && value !== null);
  return element("dl", { class: "values" }, ...shown.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

/** A little square of a colour of the style sheet. */
function swatch(color) {
  const made = element("span", { class: "swatch", "aria-hidden": "true" });
  made.style.background = `var(--${color})`;
  return made;
}

const levelText = (irql) => element("span", {}, swatch(levelColorName(irql)), levelName(irql));

/** An object that a click searches for. */
function objectLink(object) {
  if (!object) return "";
  const search = () => setSearch(`#${object}`);
  return element("button", { type: "button", class: "link", title: "Find its steps", onclick: search }, objectName(object));
}

/** The places in driver code that a step was called from, innermost first. The lines of the first, and of the first in the driver's own code, are shown. */
function source(step, title = step === run.failure ? "Where it failed" : "Source") {
  const frames = framesOf(step);
  if (!frames.length) return [];
  const own = frames.findIndex((frame) => frame.file && !LIBRARY.test(frame.file));
  const shown = frames.map((frame, depth) => {
    const file = frame.file ? `${frame.file}${frame.line ? `:${frame.line}` : ""}` : "";
    const excerpt = data.sources[file];
    const place = [element("code", {}, frame.function), file ? element("small", { title: file }, shortPath(file)) : ""];
    if (!excerpt) return element("p", { class: "place" }, ...place);
    const made = element("details", { class: "place" }, element("summary", {}, ...place), excerptText(excerpt, frame.line, step === run.failure));
    made.open = depth === 0 || depth === own;
    return made;
  });
  return [heading(title), ...shown];
}

/** Code that a driver's author did not write. */
const LIBRARY = /[\\/](?:\.cargo[\\/]registry|ksync[\\/]src)[\\/]/;

/** The end of a path that is long. */
function shortPath(path) {
  const parts = path.split(/[\\/]/);
  return parts.length > 4 ? `…/${parts.slice(-3).join("/")}` : path;
}

function excerptText(excerpt, line, failed) {
  const lines = excerpt.lines.map((text, index) => {
    const at = excerpt.first + index;
    return element("span", at === line ? { class: "here", "aria-current": "true" } : {}, element("i", {}, String(at)), text || " ");
  });
  return element("pre", failed ? { class: "failure" } : {}, ...lines);
}

/** Where the threads of a failure called from last, when it has no place of its own: in a deadlock. */
function whereThreadsStand() {
  if (data.failure.frames.length) return [];
  return data.failure.threads.flatMap((thread) => {
    const lane = lanes[laneOf("thread", thread)];
    const step = lane.steps.findLast((candidate) => framesOf(candidate).length > 0);
    return step === undefined ? [] : source(step, `${lane.name} called from`);
  });
}

/** What all threads are at, at a step. */
function threadsAt(step) {
  const rows = lanes
    .filter((lane) => lane.kind === "thread")
    .map((lane) => {
      const index = spanAt(lane, 0, Math.min(step, run.count - 1));
      if (index < 0) return null;
      const held = heldAt(lane, Math.min(step, run.count - 1)).map(objectName);
      const state = lane.what[index] === WHAT.run ? `${spanLabel(lane, index)}, ${shortLevel(lane.irql[index])}` : spanLabel(lane, index);
      return element(
        "tr",
        {},
        element("td", {}, lane.name),
        element("td", {}, swatch(spanColorName(lane, index)), state, held.length ? `; holds ${held.join(", ")}` : ""),
      );
    })
    .filter(Boolean);
  return rows.length ? [heading("Threads at this step"), element("table", {}, element("tbody", {}, ...rows))] : [];
}

/** The objects that a lane's owner holds at a step. */
function heldAt(lane, step) {
  const held = [];
  for (let row = 1; row < lane.rows.length; row++) {
    const index = spanAt(lane, row, step);
    if (index >= 0) held.push(lane.object[index]);
  }
  return held;
}

function showRun() {
  const parts = [element("h2", {}, "The run"), element("pre", { class: "text" }, data.end.report)];
  if (run.steps === 0) parts.push(element("p", {}, "The trace is empty: it was not recorded."));
  else parts.push(element("p", { class: "number" }, "Select a step to see it with its source line."));
  if (data.output.length) parts.push(heading("Debug output"), element("pre", { class: "text" }, data.output.join("\n")));
  detail.replaceChildren(...parts);
}

function showStep(step) {
  const position = element("p", { class: "number" }, `step ${number(step)} of ${number(run.steps)}`);
  if (step === run.failure) {
    detail.replaceChildren(
      position,
      element("h2", { class: "failed" }, ...breakable(data.end.headline)),
      element("p", {}, data.end.summary),
      ...source(step),
      ...whereThreadsStand(),
      heading("Report"),
      element("pre", { class: "text" }, data.end.report),
      ...threadsAt(step),
    );
    return;
  }
  const actor = run.actor[step];
  const pairs = [
    ["time", seconds(run.time[step])],
    ["processor", String(run.processor[step])],
    ["level", levelText(run.irql[step])],
    ["then", run.after[step] === run.irql[step] ? "" : levelText(run.after[step])],
    ["by", actorName(step) + (actor === ACTOR_DPC ? ` on processor ${run.processor[step]}` : "")],
    ["object", objectOf(step).startsWith("driver") ? objectOf(step) : objectLink(run.object[step])],
    ["more", argumentText(step)],
  ];
  detail.replaceChildren(position, element("h2", {}, operationText(step)), values(pairs), ...source(step), ...threadsAt(step));
}

// The list has rows for what is in view only. A long one is scaled, as an element cannot be as high as all rows.

let rowsShown = null;

function listed() {
  return rowsShown ?? run.steps;
}

const stepOfRow = (row) => (rowsShown === null ? row : view.matches[row]);
const rowOfStep = (step) => (rowsShown === null ? step : firstWhere(0, view.matches.length, (k) => view.matches[k] >= step));

/** Lists the matches of a search, or everything. */
function listMatches(only) {
  rowsShown = only ? view.matches.length : null;
  const height = Math.min(listed() * ROW_HEIGHT, HIGHEST);
  listSpacer.style.height = `${height}px`;
  list.scrollTop = 0;
  drawList();
}

function firstRow() {
  const rows = Math.ceil(list.clientHeight / ROW_HEIGHT);
  const range = listSpacer.offsetHeight - list.clientHeight;
  const share = range > 0 ? list.scrollTop / range : 0;
  return Math.max(0, Math.min(Math.round(share * (listed() - rows + 1)), listed() - 1));
}

function drawList() {
  const rows = Math.ceil(list.clientHeight / ROW_HEIGHT);
  const first = firstRow();
  const made = [listSpacer];
  for (let row = first; row < Math.min(first + rows, listed()); row++) {
    made.push(listRow(row, list.scrollTop + (row - first) * ROW_HEIGHT));
  }
  list.replaceChildren(...made);
  const selected = view.selected >= 0 ? document.getElementById(`step-${view.selected}`) : null;
  if (selected) list.setAttribute("aria-activedescendant", selected.id);
  else list.removeAttribute("aria-activedescendant");
}

function listRow(row, top) {
  const step = stepOfRow(row);
  const failed = step === run.failure;
  const classes = ["row"];
  if (step === view.selected) classes.push("selected");
  if (failed) classes.push("failed");
  const match = firstWhere(0, view.matches.length, (k) => view.matches[k] >= step);
  if (view.matches[match] === step) classes.push("match");
  const cells = failed
    ? ["failure", seconds(run.time[run.count]), data.failure.processor ?? "", "", "", operationText(step)]
    : [number(step), seconds(run.time[step]), run.processor[step], levelText(run.irql[step]), actorName(step), stepText(step)];
  const made = element(
    "div",
    {
      class: classes.join(" "),
      role: "option",
      id: `step-${step}`,
      "aria-selected": String(step === view.selected),
      "aria-posinset": String(row + 1),
      "aria-setsize": String(listed()),
      onclick: () => select(step),
    },
    ...cells.map((cell) => element("span", {}, cell instanceof Node ? cell : String(cell))),
  );
  made.style.top = `${top}px`;
  return made;
}

/** Scrolls the list so that a step is in view. */
function revealInList(step) {
  const rows = Math.max(1, Math.floor(list.clientHeight / ROW_HEIGHT));
  const row = rowOfStep(step);
  const first = firstRow();
  if (row >= first && row < first + rows - 1) return;
  const target = Math.max(0, row - Math.floor(rows / 2));
  const range = listSpacer.offsetHeight - list.clientHeight;
  list.scrollTop = range > 0 ? (target / Math.max(1, listed() - Math.ceil(list.clientHeight / ROW_HEIGHT) + 1)) * range : 0;
}
