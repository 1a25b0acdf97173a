// The chart: lanes over an axis of steps or of virtual time, on a canvas. What is drawn is bounded by the pixels, not by the length of the run.

const GUTTER = 148;
const RULER = 30;
const SECTION = 24;
const LANE_ROW = 22;
const HELD_ROW = 13;
const LANE_GAP = 9;
const MINIMUM_STEPS = 8;
/** The part of the axis of virtual time that spreads the steps of one instant. */
const SPREAD = 0.35;

const canvas = document.getElementById("canvas");
const overview = document.getElementById("overview");
const scroller = document.getElementById("scroll");
const context = canvas.getContext("2d");

const view = {
  axis: "steps",
  /** Where each step begins on the axis, and the end of the last. */
  position: new Float64Array(0),
  from: 0,
  to: 1,
  selected: -1,
  lane: 0,
  matches: new Uint32Array(0),
  width: 0,
  height: 0,
};

/** What is one behind another from top to bottom: headings and lanes. */
const layout = (() => {
  const headings = { processor: "Processors", thread: "Threads", clock: "Clock and timers" };
  const items = [];
  let y = 0;
  let kind = "";
  lanes.forEach((lane, index) => {
    if (lane.kind !== kind) {
      kind = lane.kind;
      items.push({ heading: headings[kind], y, height: SECTION });
      y += SECTION;
    }
    const height = LANE_ROW + (lane.rows.length - 1) * HELD_ROW + LANE_GAP;
    items.push({ index, y, height });
    lane.y = y;
    lane.height = height;
    y += height;
  });
  return { items, height: y + 8 };
})();

function setAxis(axis) {
  view.axis = axis;
  const position = new Float64Array(run.steps + 2);
  const total = run.time[run.count] || 1;
  const stands = axis === "time" ? SPREAD / (1 - SPREAD) : 0;
  for (let step = 0; step < position.length; step++) {
    const time = run.time[Math.min(step, run.count)];
    position[step] = axis === "steps" ? step : time + (stands * total * step) / (run.steps || 1);
  }
  view.position = position;
}

const axisEnd = () => view.position[run.steps] || 1;
const xOf = (position) => GUTTER + ((position - view.from) / (view.to - view.from)) * (view.width - GUTTER);
const xOfStep = (step) => xOf(view.position[step]);
const positionAt = (x) => view.from + ((x - GUTTER) / (view.width - GUTTER)) * (view.to - view.from);
const stepAt = (position) => Math.max(0, firstWhere(0, run.steps, (step) => view.position[step] > position) - 1);
const middleOf = (step) => (view.position[step] + view.position[step + 1]) / 2;

function smallestView() {
  const all = axisEnd();
  return Math.min(all, (all / Math.max(run.steps, 1)) * (view.axis === "steps" ? MINIMUM_STEPS : 0.05));
}

function show(from, to) {
  const all = axisEnd();
  const length = Math.min(Math.max(to - from, smallestView()), all);
  view.from = Math.min(Math.max(from, 0), all - length);
  view.to = view.from + length;
  redraw();
}

function zoom(factor, around = (view.from + view.to) / 2) {
  const length = Math.max((view.to - view.from) * factor, smallestView());
  const share = (around - view.from) / (view.to - view.from);
  show(around - share * length, around + (1 - share) * length);
}

/** Moves as little as is needed for a step to be well in view. */
function reveal(step) {
  const length = view.to - view.from;
  const at = middleOf(step);
  if (at < view.from + length * 0.04 || at > view.to - length * 0.04) show(at - length / 2, at + length / 2);
}

// Colours are those of the style sheet, in whichever scheme is on.

let colors = {};

function readColors() {
  const style = getComputedStyle(document.documentElement);
  const get = (name) => style.getPropertyValue(`--${name}`).trim();
  const names = "page panel line line-strong text muted accent accent-soft danger danger-soft band match passive apc dispatch device on-span wait on-wait ready interrupted dpc hold hold-shared armed";
  colors = Object.fromEntries(names.split(" ").map((name) => [name, get(name)]));
  colors.hatch = hatch(colors.dispatch, colors.panel);
  colors.font = style.getPropertyValue("--sans");
}

/** Stripes, for a processor that turns. */
function hatch(color, paper) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 8;
  const pen = tile.getContext("2d");
  pen.fillStyle = paper;
  pen.fillRect(0, 0, 8, 8);
  pen.strokeStyle = color;
  pen.lineWidth = 3;
  pen.beginPath();
  for (const shift of [-8, 0, 8]) {
    pen.moveTo(shift, 8);
    pen.lineTo(shift + 8, 0);
  }
  pen.stroke();
  return context.createPattern(tile, "repeat");
}

const levelColorName = (irql) => ["passive", "apc", "dispatch"][irql] ?? "device";

/** The name of a span's colour in the style sheet. */
function spanColorName(lane, index) {
  switch (lane.what[index]) {
    case WHAT.run:
      return levelColorName(lane.irql[index]);
    case WHAT.spin:
      return "dispatch";
    case WHAT.dpc:
      return "dpc";
    case WHAT.ready:
      return "ready";
    case WHAT.interrupted:
      return "interrupted";
    case WHAT.wait:
      return "wait";
    case WHAT.hold:
      return "hold";
    case WHAT.holdShared:
      return "hold-shared";
    default:
      return "armed";
  }
}

const spanColor = (lane, index) => (lane.what[index] === WHAT.spin ? colors.hatch : colors[spanColorName(lane, index)]);

function labelColor(what) {
  if (what === WHAT.wait || what === WHAT.ready || what === WHAT.interrupted || what === WHAT.holdShared) return colors["on-wait"];
  return what === WHAT.spin ? colors.text : colors["on-span"];
}

let scheduled = false;

/** Draws once, before the next frame, however often it is called. */
function redraw() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    draw();
  });
}

function resize() {
  const scale = devicePixelRatio || 1;
  const box = scroller.getBoundingClientRect();
  view.width = Math.max(scroller.clientWidth, GUTTER + 50);
  view.height = Math.max(Math.floor(box.height), 60);
  for (const [surface, height] of [[canvas, view.height], [overview, 34]]) {
    surface.width = Math.round(view.width * scale);
    surface.height = Math.round(height * scale);
    surface.style.width = `${view.width}px`;
    surface.style.height = `${height}px`;
    surface.getContext("2d").setTransform(scale, 0, 0, scale, 0, 0);
  }
  document.getElementById("spacer").style.height = `${Math.max(layout.height + RULER, view.height)}px`;
  readColors();
  draw();
}

function draw() {
  const begin = performance.now();
  context.fillStyle = colors.panel;
  context.fillRect(0, 0, view.width, view.height);
  context.textBaseline = "middle";
  const top = RULER - scroller.scrollTop;
  context.save();
  context.beginPath();
  context.rect(0, RULER, view.width, view.height - RULER);
  context.clip();
  for (const item of layout.items) {
    const y = top + item.y;
    if (y > view.height || y + item.height < RULER) continue;
    if (item.heading) drawHeading(item, y);
    else drawLane(lanes[item.index], item.index, y);
  }
  drawVerticals();
  context.restore();
  drawRuler();
  drawOverview();
  view.drawTime = performance.now() - begin;
}

function drawHeading(item, y) {
  context.fillStyle = colors.band;
  context.fillRect(0, y, view.width, item.height);
  context.fillStyle = colors.muted;
  context.font = `650 11px ${colors.font}`;
  context.textAlign = "left";
  context.fillText(item.heading, 16, y + item.height / 2 + 0.5);
}

function drawLane(lane, index, y) {
  if (index === view.lane) {
    context.fillStyle = colors["accent-soft"];
    context.fillRect(0, y, GUTTER, lane.height);
  }
  context.font = `${index === view.lane ? 600 : 400} 12.5px ${colors.font}`;
  context.textAlign = "left";
  context.fillStyle = failedLanes.has(index) ? colors.danger : colors.text;
  context.fillText(lane.name, 16, y + LANE_GAP / 2 + LANE_ROW / 2, GUTTER - 24);
  context.fillStyle = colors.line;
  context.fillRect(0, y + lane.height - 1, view.width, 1);

  context.save();
  context.beginPath();
  context.rect(GUTTER, y, view.width - GUTTER, lane.height);
  context.clip();
  let rowY = y + LANE_GAP / 2;
  for (let row = 0; row < lane.rows.length; row++) {
    const height = row === 0 ? LANE_ROW : HELD_ROW;
    drawRow(lane, row, rowY, height);
    rowY += height;
  }
  drawMarks(lane, y + LANE_GAP / 2);
  if (failedLanes.has(index)) {
    const x = xOfStep(run.failure);
    const width = Math.max(xOfStep(run.failure + 1) - x, 4);
    context.fillStyle = colors.danger;
    context.fillRect(x, y + LANE_GAP / 2, width, LANE_ROW - 1);
  }
  context.restore();
}

/** Draws the spans of a row that are in view, one for a pixel where they are narrower. */
function drawRow(lane, row, y, height) {
  const { from, to } = lane.rows[row];
  const { position } = view;
  const firstOver = (start, limit) => firstWhere(start, to, (i) => position[lane.end[i]] > limit);
  context.font = row === 0 ? `500 11px ${colors.font}` : `500 10px ${colors.font}`;
  context.textAlign = "left";
  const scale = (view.width - GUTTER) / (view.to - view.from);
  for (let i = firstOver(from, view.from); i < to; ) {
    const begin = position[lane.begin[i]];
    if (begin > view.to) break;
    const x0 = Math.max(xOf(begin), GUTTER - 2);
    const x1 = Math.min(xOf(position[lane.end[i]]), view.width + 2);
    const waits = lane.what[i] === WHAT.wait;
    const [spanY, spanHeight] = waits ? [y + 5, height - 11] : [y, height - 1];
    context.fillStyle = spanColor(lane, i);
    if (x1 - x0 < 1.5) {
      // Of all that falls on one pixel, what its middle falls on is drawn. What is missed so is not lost, but paler.
      const pixel = Math.floor(x0);
      const middle = view.from + (pixel + 0.75 - GUTTER) / scale;
      const drawn = firstOver(i, middle);
      const hit = drawn < to && position[lane.begin[drawn]] <= middle;
      if (hit) context.fillStyle = spanColor(lane, drawn);
      context.globalAlpha = hit ? 1 : 0.4;
      context.fillRect(pixel, spanY, 1.5, spanHeight);
      context.globalAlpha = 1;
      i = Math.max(i + 1, firstOver(i + 1, view.from + (pixel + 1.5 - GUTTER) / scale));
      continue;
    }
    const gap = x1 - x0 > 5 ? 1 : 0;
    context.fillRect(x0, spanY, x1 - x0 - gap, spanHeight);
    if (x1 - x0 > 22) drawLabel(lane, i, x0 + 5, y + height / 2, x1 - x0 - 9);
    i++;
  }
}

const widths = new Map();

function widthOf(text) {
  const key = context.font + text;
  let width = widths.get(key);
  if (width === undefined) {
    width = context.measureText(text).width;
    widths.set(key, width);
  }
  return width;
}

/** A span's label: in full, or cut where at least some words are left, or short, or not at all. */
function drawLabel(lane, index, x, y, room) {
  let text = spanLabel(lane, index);
  if (widthOf(text) > room) {
    const letters = Math.floor((text.length * room) / widthOf(text)) - 1;
    text = letters > 11 ? `${text.slice(0, letters)}…` : shortSpanLabel(lane, index);
    if (widthOf(text) > room) return;
  }
  context.fillStyle = labelColor(lane.what[index]);
  context.fillText(text, x, y + 0.5);
}

/** The steps of a lane as dots, where there is room for them. */
function drawMarks(lane, y) {
  const { steps } = lane;
  let i = firstWhere(0, steps.length, (k) => view.position[steps[k] + 1] >= view.from);
  const last = firstWhere(i, steps.length, (k) => view.position[steps[k]] > view.to);
  if ((last - i) * 9 > view.width - GUTTER) return;
  for (; i < last; i++) {
    const step = steps[i];
    context.beginPath();
    context.arc(xOf(middleOf(step)), y + LANE_ROW - 4.5, step === view.selected ? 3.5 : 2, 0, 2 * Math.PI);
    context.fillStyle = step === view.selected ? colors.accent : colors.text;
    context.globalAlpha = step === view.selected ? 1 : 0.55;
    context.fill();
    context.globalAlpha = 1;
  }
}

function drawVerticals() {
  const line = (position, color, width) => {
    const x = xOf(position);
    if (x < GUTTER || x > view.width) return;
    context.fillStyle = color;
    context.fillRect(Math.round(x - width / 2), RULER, width, view.height);
  };
  if (run.failure >= 0) line(middleOf(run.failure), colors.danger, 2);
  if (view.selected >= 0 && view.selected !== run.failure) line(middleOf(view.selected), colors.accent, 1);
}

/** A step between marks of the ruler: 1, 2 or 5 times a power of ten. */
function niceStep(atLeast) {
  const power = 10 ** Math.floor(Math.log10(atLeast));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= atLeast);
}

/** Where a time is on the axis. */
function positionOfTime(time) {
  const step = firstWhere(0, run.steps, (i) => run.time[Math.min(i, run.count)] >= time);
  if (step === 0 || step >= run.steps) return view.position[Math.min(step, run.steps)];
  const before = run.time[step - 1];
  const share = (time - before) / (run.time[Math.min(step, run.count)] - before || 1);
  return view.position[step - 1] + share * (view.position[step] - view.position[step - 1]);
}

function drawRuler() {
  context.fillStyle = colors.panel;
  context.fillRect(0, 0, view.width, RULER);
  context.fillStyle = colors.line;
  context.fillRect(0, RULER - 1, view.width, 1);
  context.font = `11px ${colors.font}`;
  context.textAlign = "left";
  context.fillStyle = colors.muted;
  context.fillText(view.axis === "steps" ? "step" : "virtual time", 16, RULER / 2);
  const room = view.width - GUTTER;
  const mark = (position, text) => {
    const x = Math.round(xOf(position));
    if (x < GUTTER || x > view.width - 10) return;
    context.fillStyle = colors["line-strong"];
    context.fillRect(x, RULER - 8, 1, 7);
    context.fillStyle = colors.muted;
    context.fillText(text, x + 4, RULER / 2);
  };
  if (view.axis === "steps") {
    const every = Math.max(1, niceStep(((view.to - view.from) / room) * 90));
    for (let step = Math.ceil(view.from / every) * every; step <= view.to; step += every) mark(step, number(step));
  } else {
    const [first, last] = [run.time[Math.min(stepAt(view.from), run.count)], run.time[Math.min(stepAt(view.to) + 1, run.count)]];
    const every = Math.max(1, niceStep(((last - first || 1) / room) * 110));
    let free = GUTTER;
    for (let time = Math.ceil(first / every) * every; time <= last; time += every) {
      const position = positionOfTime(time);
      const x = xOf(position);
      if (x < free) continue;
      mark(position, shortSeconds(time));
      free = x + 84;
    }
  }
  drawMatches();
  if (run.failure >= 0) {
    const x = xOf(middleOf(run.failure));
    if (x >= GUTTER && x <= view.width) {
      context.fillStyle = colors.danger;
      context.beginPath();
      context.moveTo(x - 6, RULER - 12);
      context.lineTo(x + 6, RULER - 12);
      context.lineTo(x, RULER - 2);
      context.fill();
    }
  }
}

function drawMatches() {
  const { matches, position } = view;
  context.fillStyle = colors.match;
  for (let i = firstWhere(0, matches.length, (k) => position[matches[k] + 1] >= view.from); i < matches.length; ) {
    if (position[matches[i]] > view.to) break;
    const x = Math.floor(xOf(middleOf(matches[i])));
    context.fillRect(x - 1, RULER - 5, 3, 4);
    const next = positionAt(x + 3);
    i = Math.max(i + 1, firstWhere(i + 1, matches.length, (k) => middleOf(matches[k]) > next));
  }
}

/** The whole run in little: what the processors do, and which part is in view. */
function drawOverview() {
  const pen = overview.getContext("2d");
  pen.fillStyle = colors.band;
  pen.fillRect(0, 0, view.width, 34);
  const room = view.width - GUTTER;
  const all = axisEnd();
  const shown = lanes.filter((lane) => lane.kind === "processor");
  const height = Math.max(1, Math.min(7, Math.floor(26 / shown.length)));
  shown.slice(0, Math.floor(28 / height)).forEach((lane, index) => {
    const { from, to } = lane.rows[0];
    for (let i = from; i < to; ) {
      const x0 = GUTTER + (view.position[lane.begin[i]] / all) * room;
      const x1 = GUTTER + (view.position[lane.end[i]] / all) * room;
      pen.fillStyle = spanColor(lane, i);
      pen.fillRect(x0, 4 + index * height, Math.max(x1 - x0, 1), Math.max(height - 1, 1));
      const next = ((Math.max(x1, x0 + 1) - GUTTER) / room) * all;
      i = Math.max(i + 1, firstWhere(i + 1, to, (k) => view.position[lane.end[k]] > next));
    }
  });
  const x = (position) => GUTTER + (position / all) * room;
  if (run.failure >= 0) {
    pen.fillStyle = colors.danger;
    pen.fillRect(Math.min(x(middleOf(run.failure)), view.width - 3), 0, 3, 34);
  }
  const [from, to] = [x(view.from), Math.max(x(view.to), x(view.from) + 3)];
  pen.fillStyle = colors.panel;
  pen.globalAlpha = 0.65;
  pen.fillRect(GUTTER, 0, from - GUTTER, 34);
  pen.fillRect(to, 0, view.width - to, 34);
  pen.globalAlpha = 1;
  pen.strokeStyle = colors.accent;
  pen.lineWidth = 1.5;
  pen.strokeRect(from + 0.75, 0.75, to - from - 1.5, 32.5);
  pen.fillStyle = colors.muted;
  pen.font = `11px ${colors.font}`;
  pen.textBaseline = "middle";
  pen.fillText("whole run", 16, 17);
}
