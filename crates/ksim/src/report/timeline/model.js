// The run: the data of the page, what is looked up in it, and how it is put into words.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);

const WHAT = { run: 0, spin: 1, dpc: 2, ready: 3, interrupted: 4, wait: 5, hold: 6, holdShared: 7, armed: 8 };
const ACTOR_DPC = -1;
const ACTOR_CLOCK = -2;

/** The index of the first of `from..to` that `isPast` holds for, which it then does for all that follow. */
function firstWhere(from, to, isPast) {
  while (from < to) {
    const middle = (from + to) >>> 1;
    if (isPast(middle)) to = middle;
    else from = middle + 1;
  }
  return from;
}

const run = (() => {
  const { events } = data;
  const count = events.time.length;
  const time = new Float64Array(count + 1);
  let now = 0;
  for (let step = 0; step < count; step++) {
    now += events.time[step];
    time[step] = now;
  }
  time[count] = Math.max(now, data.virtualTime);
  const column = (values, Kind) => Kind.from(values);
  return {
    count,
    /** The steps that can be selected: all events, and the failure behind them. */
    steps: count + (data.failure ? 1 : 0),
    failure: data.failure ? count : -1,
    time,
    processor: column(events.processor, Uint8Array),
    irql: column(events.irql, Uint8Array),
    after: column(events.after, Uint8Array),
    actor: column(events.actor, Int32Array),
    operation: column(events.operation, Uint8Array),
    object: column(events.object, Uint32Array),
    site: column(events.site, Uint32Array),
    argument: events.argument,
  };
})();

/** The lanes from top to bottom, each with where its rows are among its spans and which steps are on it. */
const lanes = (() => {
  const order = { processor: 0, thread: 1, clock: 2 };
  const all = data.lanes.slice().sort((a, b) => order[a.kind] - order[b.kind] || a.id - b.id);
  const byKey = new Map();
  const result = all.map((lane, index) => {
    byKey.set(lane.kind + lane.id, index);
    const begin = Uint32Array.from(lane.begin);
    const row = Uint8Array.from(lane.row);
    const rows = [];
    for (let r = 0, from = 0; r < lane.rows; r++) {
      const to = firstWhere(from, row.length, (i) => row[i] > r);
      rows.push({ from, to });
      from = to;
    }
    return {
      kind: lane.kind,
      id: lane.id,
      name: lane.name,
      rows,
      begin,
      end: Uint32Array.from(lane.end),
      what: Uint8Array.from(lane.what),
      irql: Uint8Array.from(lane.irql),
      object: Uint32Array.from(lane.object),
      steps: [],
    };
  });
  const at = (kind, id) => result[byKey.get(kind + id)];
  for (let step = 0; step < run.count; step++) {
    const actor = run.actor[step];
    if (actor === ACTOR_CLOCK) {
      at("clock", 0).steps.push(step);
    } else {
      at("processor", run.processor[step])?.steps.push(step);
      if (actor >= 0) at("thread", actor)?.steps.push(step);
    }
  }
  for (const lane of result) lane.steps = Uint32Array.from(lane.steps);
  return result;
})();

const laneOf = (kind, id) => lanes.findIndex((lane) => lane.kind === kind && lane.id === id);

/** The lanes that the failure is marked on. */
const failedLanes = new Set();
if (data.failure) {
  for (const thread of data.failure.threads) failedLanes.add(laneOf("thread", thread));
  if (data.failure.processor !== null) failedLanes.add(laneOf("processor", data.failure.processor));
}

/** The span of a row that a step falls into, or -1. */
function spanAt(lane, row, step) {
  const range = lane.rows[row];
  if (!range) return -1;
  const index = firstWhere(range.from, range.to, (i) => lane.end[i] > step);
  return index < range.to && lane.begin[index] <= step ? index : -1;
}

// In words.

const number = (value) => value.toLocaleString("en");

/** A time in 100 ns units, as seconds. */
const seconds = (time) => `${(time / 1e7).toFixed(7)} s`;

/** The same without zeros at its end. */
const shortSeconds = (time) => `${+(time / 1e7).toFixed(7)} s`;

/** A length of virtual time in 100 ns units. */
function duration(time) {
  if (time < 10000) return `${+(time / 10).toFixed(1)} µs`;
  if (time < 10000000) return `${+(time / 10000).toFixed(3)} ms`;
  return `${+(time / 1e7).toFixed(3)} s`;
}

const levelName = (irql) => data.levels[irql] ?? `IRQL ${irql}`;
const shortLevel = (irql) => (irql > 2 && irql < 13 ? `level ${irql}` : levelName(irql).replace("_LEVEL", ""));
const threadName = (thread) => `thread #${data.threads[thread]?.number ?? "?"}`;

function actorName(step) {
  if (step === run.failure) return "";
  const actor = run.actor[step];
  if (actor === ACTOR_DPC) return "DPC";
  if (actor === ACTOR_CLOCK) return "clock";
  return threadName(actor);
}

function objectName(object) {
  if (object === 0) return "";
  return `${data.kinds[object] ?? "object"} #${object}`;
}

const operationOf = (step) => data.events.operations[run.operation[step]];

/** A step's object. The number of a driver is not one of an object. */
function objectOf(step) {
  const operation = operationOf(step);
  if (operation === "load driver" || operation === "unload driver") return `driver ${run.object[step]}`;
  return objectName(run.object[step]);
}

const signed = (argument) => (typeof argument === "string" ? BigInt.asIntN(64, BigInt(argument)) : BigInt(argument));

/** What a step's argument says, if it says anything. */
function argumentText(step) {
  const argument = run.argument[step];
  switch (operationOf(step)) {
    case "end wait":
      return data.events.statuses[argument] ?? `status 0x${argument.toString(16)}`;
    case "terminate thread":
      return `exit status 0x${argument.toString(16)}`;
    case "block":
      return argument > 1 ? `one of ${argument} objects that it waits for` : argument === 0 ? "for a time" : "";
    case "wait":
      return argument > 1 ? `and ${argument - 1} more` : "";
    case "delay":
    case "set timer": {
      const value = signed(argument);
      return value < 0n ? `in ${duration(Number(-value))}` : `at ${shortSeconds(Number(value))}`;
    }
    case "advance clock":
      return `to ${shortSeconds(Number(argument))}`;
    case "leave thread":
      return ["it could go on", "it waits", "it has ended"][argument] ?? "";
    case "acquire spin lock":
      return ["", "queued", "shared", "exclusive"][argument] ?? "";
    case "acquire push lock":
      return argument === 1 ? "exclusive" : "shared";
    case "acquire resource":
      return argument === 0 ? "exclusive" : "shared";
    case "acquire rundown":
      return argument === 1 ? "granted" : "refused";
    case "cancel timer":
      return argument === 1 ? "it was armed" : "it was not armed";
    case "remove DPC":
      return argument === 1 ? "it was queued" : "it was not queued";
    case "insert DPC":
      return `for processor ${argument}`;
    case "raise IRQL":
      return `from ${levelName(argument)}`;
    case "lower IRQL":
      return `to ${levelName(argument)}`;
    case "timer expired":
      return argument === 1 ? "and is set again" : "";
    case "debug print":
      return `"${data.events.printed[step] ?? ""}"`;
    default:
      return "";
  }
}

/** What was done, with its object. */
function operationText(step) {
  if (step === run.failure) return data.end.headline;
  const operation = operationOf(step);
  const object = objectOf(step);
  const [verb, ...rest] = operation.split(" ");
  // "acquire spin lock" on "spin lock #4" need not be said twice.
  const kind = data.kinds[run.object[step]] ?? "";
  if (object && rest.join(" ").toLowerCase() === kind.toLowerCase()) return `${verb} ${object}`;
  return object ? `${operation}: ${object}` : operation;
}

function stepText(step) {
  const argument = step === run.failure ? "" : argumentText(step);
  return operationText(step) + (argument ? `, ${argument}` : "");
}

const framesOf = (step) => (step === run.failure ? data.failure.frames : (data.sites[run.site[step]] ?? []));

/** What a span is called on its lane. */
function spanLabel(lane, index) {
  const object = lane.object[index];
  switch (lane.what[index]) {
    case WHAT.run:
      return lane.kind === "processor" ? threadName(object) : `on processor ${object}`;
    case WHAT.spin:
      return "turns on a lock";
    case WHAT.dpc:
      return `DPC #${object}`;
    case WHAT.ready:
      return "ready";
    case WHAT.interrupted:
      return `interrupted by DPC #${object}`;
    case WHAT.wait:
      return object ? `waits for ${objectName(object)}` : "waits";
    case WHAT.holdShared:
      return `${objectName(object)}, shared`;
    default:
      return objectName(object);
  }
}

/** The same where there is little room. */
function shortSpanLabel(lane, index) {
  const object = lane.object[index];
  switch (lane.what[index]) {
    case WHAT.run:
      return lane.kind === "processor" ? `#${data.threads[object]?.number ?? "?"}` : `p${object}`;
    case WHAT.spin:
    case WHAT.ready:
      return "";
    default:
      return object ? `#${object}` : "";
  }
}

/** The words of each step that a search looks at, made when first asked for. */
let haystack = null;

function searchText(step) {
  haystack ??= new Array(run.steps);
  return (haystack[step] ??= (() => {
    const frames = framesOf(step);
    const place = frames.length ? `${frames[0].function} ${frames[0].file ?? ""}:${frames[0].line ?? ""}` : "";
    if (step === run.failure) return `failure ${data.end.headline} ${data.end.summary} ${place}`.toLowerCase();
    const where = `p${run.processor[step]} ${levelName(run.irql[step])}`;
    return `${where} ${actorName(step)} ${operationOf(step)} ${stepText(step)} ${place}`.toLowerCase();
  })());
}

/** The steps that all words of a query are found in. A word that begins with `#` is a whole number. */
function find(query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return new Uint32Array(0);
  const tests = words.map((word) => {
    if (!/^#\d+$/.test(word)) return (text) => text.includes(word);
    const whole = new RegExp(`${word}(?!\\d)`);
    return (text) => whole.test(text);
  });
  const found = [];
  for (let step = 0; step < run.steps; step++) {
    const text = searchText(step);
    if (tests.every((test) => test(text))) found.push(step);
  }
  return Uint32Array.from(found);
}
