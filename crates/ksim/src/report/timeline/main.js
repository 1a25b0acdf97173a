// What the page does when it is used.

const search = document.getElementById("search");
const tip = document.getElementById("tip");
const live = document.getElementById("live");
const help = document.getElementById("help");

// Selecting.

/** Selects a step, or none with -1. */
function select(step, lane = null) {
  view.selected = Math.min(Math.max(step, -1), run.steps - 1);
  if (view.selected < 0) {
    showRun();
    live.textContent = "No step is selected.";
  } else {
    const found = lane ?? laneOfStep(view.selected);
    if (found >= 0) view.lane = found;
    reveal(view.selected);
    revealLane();
    showStep(view.selected);
    revealInList(view.selected);
    live.textContent = describe(view.selected);
  }
  updateMatchCount();
  drawList();
  redraw();
}

/** The lane that a step is shown on: the one that is selected, if it is one of its. */
function laneOfStep(step) {
  if (step === run.failure) return failedLanes.has(view.lane) ? view.lane : [...failedLanes].at(-1) ?? view.lane;
  const lane = lanes[view.lane];
  const index = lane ? firstWhere(0, lane.steps.length, (k) => lane.steps[k] >= step) : 0;
  if (lane?.steps[index] === step) return view.lane;
  const actor = run.actor[step];
  if (actor === ACTOR_CLOCK) return laneOf("clock", 0);
  return actor >= 0 ? laneOf("thread", actor) : laneOf("processor", run.processor[step]);
}

function describe(step) {
  if (step === run.failure) return `Failure: ${data.end.headline}. ${data.end.summary}`;
  const frame = framesOf(step)[0];
  const where = frame?.line ? `, ${frame.function}, line ${frame.line}` : "";
  return `Step ${step}: ${actorName(step)} on processor ${run.processor[step]} at ${levelName(run.irql[step])}: ${stepText(step)}${where}`;
}

function revealLane() {
  const lane = lanes[view.lane];
  const room = view.height - RULER;
  if (lane.y < scroller.scrollTop) scroller.scrollTop = Math.max(0, lane.y - SECTION);
  else if (lane.y + lane.height > scroller.scrollTop + room) scroller.scrollTop = lane.y + lane.height - room;
}

function moveLane(by) {
  view.lane = Math.min(Math.max(view.lane + by, 0), lanes.length - 1);
  const lane = lanes[view.lane];
  const span = view.selected >= 0 ? spanAt(lane, 0, Math.min(view.selected, run.count - 1)) : -1;
  live.textContent = lane.name + (span >= 0 ? `: ${spanLabel(lane, span)}` : "");
  revealLane();
  redraw();
}

/** The next or previous step, of all or of the selected lane. */
function moveStep(by, withinLane) {
  if (view.selected < 0) return select(by > 0 ? stepAt(view.from) : stepAt(view.to));
  if (!withinLane) return select(Math.max(0, view.selected + by));
  const { steps } = lanes[view.lane];
  const after = firstWhere(0, steps.length, (k) => steps[k] > view.selected);
  const before = firstWhere(0, steps.length, (k) => steps[k] >= view.selected) - 1;
  if (by > 0 && after < steps.length) select(steps[after], view.lane);
  else if (by > 0 && failedLanes.has(view.lane)) select(run.failure, view.lane);
  else if (by < 0 && before >= 0) select(steps[before], view.lane);
}

// Searching.

let searchTimer = 0;

function setSearch(query) {
  search.value = query;
  runSearch();
}

function runSearch() {
  clearTimeout(searchTimer);
  view.matches = find(search.value);
  const any = view.matches.length > 0;
  document.getElementById("next-match").disabled = !any;
  document.getElementById("previous-match").disabled = !any;
  updateMatchCount();
  listMatches(search.value.trim() !== "");
  redraw();
}

function updateMatchCount() {
  const output = document.getElementById("matches");
  if (!search.value.trim()) {
    output.textContent = "";
    return;
  }
  const at = firstWhere(0, view.matches.length, (k) => view.matches[k] >= view.selected);
  const here = view.selected >= 0 && view.matches[at] === view.selected ? `${number(at + 1)} of ` : "";
  output.textContent = view.matches.length ? `${here}${number(view.matches.length)}` : "nothing";
}

function moveMatch(by) {
  const { matches } = view;
  if (!matches.length) return;
  const index =
    by > 0
      ? firstWhere(0, matches.length, (k) => matches[k] > view.selected)
      : firstWhere(0, matches.length, (k) => matches[k] >= view.selected) - 1;
  select(matches[(index + matches.length) % matches.length]);
}

// The axis and the part of it that is in view.

function fit() {
  show(0, axisEnd());
}

function chooseAxis(axis) {
  const center = stepAt((view.from + view.to) / 2);
  const steps = stepAt(view.to) - stepAt(view.from) + 1;
  const whole = view.to - view.from >= axisEnd() * 0.999;
  setAxis(axis);
  for (const radio of document.getElementsByName("axis")) radio.checked = radio.value === axis;
  if (whole) return fit();
  const [from, to] = [Math.max(0, center - steps / 2), Math.min(run.steps, center + steps / 2)];
  show(view.position[Math.floor(from)], view.position[Math.ceil(to)]);
}

function goToFailure() {
  if (run.failure < 0) return;
  const length = view.to - view.from;
  const enough = axisEnd() * Math.min(1, 120 / Math.max(run.steps, 1));
  if (length > enough * 2) show(axisEnd() - enough, axisEnd());
  select(run.failure, [...failedLanes].at(-1) ?? null);
}

// Pointers.

const inChart = (event) => {
  const box = canvas.getBoundingClientRect();
  return { x: event.clientX - box.left, y: event.clientY - box.top };
};

function laneAt(y) {
  const at = y - RULER + scroller.scrollTop;
  return y < RULER ? -1 : lanes.findIndex((lane) => at >= lane.y && at < lane.y + lane.height);
}

/** The step that a click at `x` means: one of the lane's, if one is near. */
function stepNear(x, laneIndex) {
  const position = positionAt(x);
  const step = stepAt(position);
  if (run.failure >= 0 && Math.abs(xOf(middleOf(run.failure)) - x) < 6) return run.failure;
  const steps = lanes[laneIndex]?.steps;
  if (!steps?.length) return step;
  const after = firstWhere(0, steps.length, (k) => middleOf(steps[k]) >= position);
  const near = [steps[after - 1], steps[after]].filter((candidate) => candidate !== undefined);
  const distance = (candidate) => Math.abs(xOf(middleOf(candidate)) - x);
  near.sort((a, b) => distance(a) - distance(b));
  return distance(near[0]) < 9 ? near[0] : step;
}

let drag = null;

canvas.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  const { x, y } = inChart(event);
  drag = { x, y, from: view.from, to: view.to, moved: false };
  canvas.setPointerCapture(event.pointerId);
  tip.hidden = true;
});

canvas.addEventListener("pointermove", (event) => {
  const { x, y } = inChart(event);
  if (!drag) return showTip(event, x, y);
  if (Math.abs(x - drag.x) > 3) drag.moved = true;
  if (!drag.moved) return;
  canvas.classList.add("dragging");
  const by = ((drag.x - x) / (view.width - GUTTER)) * (drag.to - drag.from);
  show(drag.from + by, drag.to + by);
});

canvas.addEventListener("pointerup", (event) => {
  const { x, y } = inChart(event);
  const clicked = drag && !drag.moved;
  drag = null;
  canvas.classList.remove("dragging");
  if (!clicked) return;
  const lane = laneAt(y);
  if (x < GUTTER) {
    if (lane >= 0) moveLane(lane - view.lane);
  } else if (run.steps > 0) {
    select(stepNear(x, lane), lane >= 0 ? lane : null);
  }
});

canvas.addEventListener("pointercancel", () => (drag = null));
canvas.addEventListener("pointerleave", () => (tip.hidden = true));
canvas.addEventListener("dblclick", (event) => zoom(0.3, positionAt(inChart(event).x)));

canvas.addEventListener(
  "wheel",
  (event) => {
    const unit = event.deltaMode === 1 ? 16 : 1;
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      zoom(Math.exp(event.deltaY * unit * 0.002), positionAt(inChart(event).x));
    } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      const by = (((event.deltaX || event.deltaY) * unit) / (view.width - GUTTER)) * (view.to - view.from);
      show(view.from + by, view.to + by);
    }
  },
  { passive: false },
);

function showTip(event, x, y) {
  const index = laneAt(y);
  const lane = lanes[index];
  if (!lane || x < GUTTER || run.steps === 0) {
    tip.hidden = true;
    return;
  }
  const step = stepNear(x, index);
  const inside = y - RULER + scroller.scrollTop - lane.y - LANE_GAP / 2 - LANE_ROW;
  const row = inside < 0 ? 0 : 1 + Math.floor(inside / HELD_ROW);
  const span = spanAt(lane, row, stepAt(positionAt(x)));
  const lines = [element("b", {}, stepText(step))];
  lines.push(element("span", {}, step === run.failure ? data.end.summary : `step ${number(step)}, ${seconds(run.time[step])}, ${shortLevel(run.irql[step])}`));
  if (span >= 0) lines.push(element("span", {}, `${lane.name}: ${spanLabel(lane, span)}, ${spanLength(lane, span)}`));
  tip.replaceChildren(...lines);
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.min(event.clientX + 14, innerWidth - box.width - 8)}px`;
  tip.style.top = `${Math.min(event.clientY + 16, innerHeight - box.height - 8)}px`;
}

function spanLength(lane, span) {
  const steps = lane.end[span] - lane.begin[span];
  const time = run.time[Math.min(lane.end[span], run.count)] - run.time[lane.begin[span]];
  return `${number(steps)} ${steps === 1 ? "step" : "steps"}${time ? `, ${duration(time)}` : ""}`;
}

let overviewDrag = false;

function overviewTo(event) {
  const box = overview.getBoundingClientRect();
  const at = ((event.clientX - box.left - GUTTER) / (view.width - GUTTER)) * axisEnd();
  const length = view.to - view.from;
  show(at - length / 2, at + length / 2);
}

overview.addEventListener("pointerdown", (event) => {
  overviewDrag = true;
  overview.setPointerCapture(event.pointerId);
  overviewTo(event);
});
overview.addEventListener("pointermove", (event) => overviewDrag && overviewTo(event));
overview.addEventListener("pointerup", () => (overviewDrag = false));
overview.addEventListener("pointercancel", () => (overviewDrag = false));

// Keys. They work wherever nothing else takes them.

const KEYS = [
  ["← →", "previous and next step"],
  ["Shift+← →", "previous and next step of the selected lane"],
  ["↑ ↓", "previous and next lane"],
  ["Home End", "first and last step"],
  ["+ − 0", "zoom in, zoom out, whole run"],
  ["T", "axis: steps or virtual time"],
  ["F", "the failure"],
  ["/", "search; Enter and N go to the next match, Shift+N to the previous one"],
  ["Esc", "end the search, or select nothing"],
  ["drag", "move; on the bar above, choose the part"],
  ["Ctrl+wheel", "zoom; Shift+wheel moves"],
];

const ACTIONS = {
  ArrowLeft: (event) => moveStep(-1, event.shiftKey),
  ArrowRight: (event) => moveStep(1, event.shiftKey),
  ArrowUp: () => moveLane(-1),
  ArrowDown: () => moveLane(1),
  Home: () => select(0),
  End: () => select(run.steps - 1),
  "+": () => zoomKey(0.5),
  "=": () => zoomKey(0.5),
  "-": () => zoomKey(2),
  0: fit,
  t: () => chooseAxis(view.axis === "steps" ? "time" : "steps"),
  f: goToFailure,
  n: () => moveMatch(1),
  N: () => moveMatch(-1),
  "/": () => search.select(),
  "?": () => help.showModal(),
  Escape: () => (search.value ? setSearch("") : select(-1)),
};

/** Zooms around the selected step, if it is in view. */
function zoomKey(factor) {
  const at = view.selected >= 0 ? middleOf(view.selected) : -1;
  zoom(factor, at >= view.from && at <= view.to ? at : undefined);
}

document.addEventListener("keydown", (event) => {
  if (help.open || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === search) {
    if (event.key === "Enter") {
      runSearch();
      moveMatch(event.shiftKey ? -1 : 1);
      event.preventDefault();
    } else if (event.key === "Escape") {
      setSearch("");
      canvas.focus();
    }
    return;
  }
  // The radio buttons, and what scrolls, keep their own keys.
  const own = event.target instanceof HTMLInputElement || event.target === detail;
  if (own && (event.key.startsWith("Arrow") || event.key === "Home" || event.key === "End")) return;
  let action = ACTIONS[event.key] ?? (event.shiftKey ? undefined : ACTIONS[event.key.toLowerCase()]);
  if (event.target === list && event.key === "ArrowUp") action = () => moveInList(-1);
  if (event.target === list && event.key === "ArrowDown") action = () => moveInList(1);
  if (!action || (run.steps === 0 && event.key !== "?")) return;
  event.preventDefault();
  action(event);
});

/** In the list, up and down go through its rows: the matches, while there is a search. */
function moveInList(by) {
  const row = view.selected < 0 ? 0 : rowOfStep(view.selected) + by;
  if (row >= 0 && row < listed()) select(stepOfRow(row));
}

// The page.

function setUp() {
  document.title = `${data.end.headline} - ksim timeline`;
  const badge = document.getElementById("badge");
  badge.textContent = { clean: "clean", left: "left behind", failed: "failed", allowed: "ended early" }[data.end.kind];
  badge.classList.add(data.end.kind);
  document.getElementById("headline").textContent = data.end.headline;
  document.getElementById("summary").textContent = data.end.summary;
  const facts = [
    ["processors", number(data.processors)],
    ["threads", number(data.threads.length)],
    ["steps", number(run.steps)],
    ["virtual time", duration(data.virtualTime)],
    ["seed", data.seed],
  ];
  document.getElementById("facts").append(...facts.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
  document.getElementById("keys").append(...KEYS.flatMap(([keys, what]) => [element("dt", {}, element("kbd", {}, keys)), element("dd", {}, what)]));
  document.getElementById("to-failure").hidden = run.failure < 0;
  const legend = [
    ["passive", "PASSIVE"],
    ["apc", "APC"],
    ["dispatch", "DISPATCH"],
    ["device", "above"],
    ["dpc", "DPC"],
    ["ready", "ready"],
    ["interrupted", "interrupted"],
    ["wait", "waits"],
    ["hold", "lock held"],
    ["hold-shared", "held shared"],
    ["armed", "timer armed"],
  ];
  const swatches = legend.map(([color, name]) => {
    const mark = element("i", { "aria-hidden": "true" });
    mark.style.background = `var(--${color})`;
    return element("li", {}, mark, name);
  });
  const stripes = element("i", { "aria-hidden": "true" });
  stripes.style.background = "repeating-linear-gradient(135deg, var(--dispatch) 0 2px, var(--panel) 2px 5px)";
  swatches.splice(4, 0, element("li", {}, stripes, "turns on a lock"));
  document.getElementById("legend").append(...swatches);
}

function on(id, action) {
  document.getElementById(id).addEventListener("click", action);
}

on("zoom-in", () => zoomKey(0.5));
on("zoom-out", () => zoomKey(2));
on("fit", fit);
on("to-failure", () => {
  goToFailure();
  canvas.focus();
});
on("next-match", () => moveMatch(1));
on("previous-match", () => moveMatch(-1));
on("show-help", () => help.showModal());
for (const radio of document.getElementsByName("axis")) radio.addEventListener("change", () => chooseAxis(radio.value));
search.addEventListener("input", () => {
  clearTimeout(searchTimer);
  searchTimer = setTimeout(runSearch, 120);
});
scroller.addEventListener("scroll", redraw, { passive: true });
list.addEventListener("scroll", drawList, { passive: true });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", resize);
new ResizeObserver(() => {
  resize();
  drawList();
}).observe(scroller);

setUp();
setAxis("steps");
view.to = axisEnd();
resize();
listMatches(false);
if (run.failure >= 0) {
  goToFailure();
  if (run.steps <= 400) fit();
} else {
  showRun();
}
document.documentElement.dataset.ready = "true";
