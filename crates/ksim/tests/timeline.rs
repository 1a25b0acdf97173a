//! Runs as timelines and as trace-event files: what they say of runs whose course is known.

use ksim::trace::{Actor, Operation};
use ksim::{Machine, Outcome};
use ksync_sys::*;
use serde_json::Value;
use test_support::*;

/// The data of a timeline's page.
fn data(outcome: &Outcome) -> Value {
    let html = outcome.timeline();
    let (_, rest) = html.split_once("id=\"data\">").expect("the page has data");
    let (data, _) = rest.split_once("</script>").expect("the data end");
    serde_json::from_str(data).expect("the data are JSON")
}

const RUN: u64 = 0;
const SPIN: u64 = 1;
const DPC: u64 = 2;
const READY: u64 = 3;
const WAIT: u64 = 5;
const HOLD: u64 = 6;
const SHARED: u64 = 7;
const ARMED: u64 = 8;

#[derive(Clone, Copy, PartialEq, Debug)]
struct Span {
    begin: u64,
    end: u64,
    what: u64,
    irql: u64,
    row: u64,
    object: u64,
}

fn spans(data: &Value, lane: &str) -> Vec<Span> {
    let lanes = data["lanes"].as_array().unwrap();
    let lane = lanes.iter().find(|other| other["name"] == lane).unwrap_or_else(|| panic!("there is no lane `{lane}`"));
    let column = |name: &str| lane[name].as_array().unwrap().iter().map(|value| value.as_u64().unwrap()).collect::<Vec<_>>();
    let columns = ["begin", "end", "what", "irql", "row", "object"].map(column);
    (0..columns[0].len())
        .map(|i| {
            let [begin, end, what, irql, row, object] = [0, 1, 2, 3, 4, 5].map(|part: usize| columns[part][i]);
            Span { begin, end, what, irql, row, object }
        })
        .collect()
}

/// The name of an operation by step.
fn operation(data: &Value, step: u64) -> &str {
    let events = &data["events"];
    let index = events["operation"][step as usize].as_u64().unwrap() as usize;
    events["operations"][index].as_str().unwrap()
}

#[test]
fn waits_and_the_processors_of_threads() {
    let outcome = Machine::new().processors(2).run(|| {
        let event = Event::synchronization();
        let thread = spawn(|| {
            wait(event.object());
        });
        sleep(MS);
        event.set();
        thread.join();
    });
    let outcome = outcome.expect_clean();
    let data = data(&outcome);
    let names: Vec<_> = data["lanes"].as_array().unwrap().iter().map(|lane| lane["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 1 + 2 + 2, "{names:?}");
    assert_eq!(names[..3], ["clock", "processor 0", "processor 1"]);
    for name in &names[3..] {
        let lane = spans(&data, name);
        assert!(lane.iter().any(|span| span.what == WAIT), "{name} waits");
        // A thread is at one thing after another, without gaps, from its creation on.
        let of_thread: Vec<_> = lane.iter().filter(|span| span.row == 0).collect();
        assert_eq!(operation(&data, of_thread[0].begin), "create thread");
        assert!(of_thread.windows(2).all(|pair| pair[0].end == pair[1].begin), "{name}: {of_thread:?}");
        // Where it runs on a processor, that processor runs it.
        let place = names.iter().position(|other| other == name).unwrap() as u64 - 3;
        for run in of_thread.iter().filter(|span| span.what == RUN) {
            let processor = spans(&data, &format!("processor {}", run.object));
            assert!(processor.contains(&Span { object: place, ..**run }), "{name}: {run:?} in {processor:?}");
        }
    }
    // The second waits for the event, and the first's set ends that.
    let second = spans(&data, names[4]);
    let waited = second.iter().find(|span| span.what == WAIT).unwrap();
    assert_eq!(data["kinds"][waited.object.to_string()], "event");
    assert_eq!(operation(&data, waited.begin), "leave thread");
    assert_eq!(operation(&data, waited.end), "end wait");
    assert_eq!(second.iter().find(|span| span.begin == waited.end).unwrap().what, READY);
}

#[test]
fn held_locks_and_levels() {
    let outcome = Machine::new().run(|| {
        SpinLock::new().with(|| {});
        lower(raise(1));
        let mut shared: EX_SPIN_LOCK = 0;
        let old = raw!(ExAcquireSpinLockShared(&raw mut shared));
        raw!(ExReleaseSpinLockShared(&raw mut shared, old));
    });
    let outcome = outcome.expect_clean();
    let data = data(&outcome);
    let name = data["lanes"][2]["name"].as_str().unwrap();
    let lane = spans(&data, name);
    let held: Vec<_> = lane.iter().filter(|span| span.what == HOLD || span.what == SHARED).collect();
    assert_eq!(held.iter().map(|span| span.what).collect::<Vec<_>>(), [HOLD, SHARED]);
    for span in held {
        assert_eq!(operation(&data, span.begin), "acquire spin lock");
        assert_eq!(operation(&data, span.end), "release spin lock");
        assert_eq!((span.irql, span.row), (2, 1));
        // The level is DISPATCH_LEVEL for exactly as long.
        let run = lane.iter().find(|run| run.row == 0 && run.begin == span.begin).expect("the level changes there");
        assert_eq!((run.what, run.irql, run.end), (RUN, 2, span.end));
    }
    let raised = lane.iter().find(|span| span.irql == 1).expect("it was at APC_LEVEL");
    assert_eq!((operation(&data, raised.begin), operation(&data, raised.end)), ("raise IRQL", "lower IRQL"));
}

/// A lock that is handed to a waiting thread is that thread's from then on.
#[test]
fn locks_that_are_handed_over() {
    let outcome = Machine::new().processors(1).run(|| {
        let mutex = Mutex::new();
        wait(mutex.object());
        let thread = spawn(|| {
            wait(mutex.object());
            mutex.release();
        });
        sleep(MS);
        mutex.release();
        thread.join();
    });
    let outcome = outcome.expect_clean();
    let acquired: Vec<_> =
        outcome.events().filter(|event| event.operation == Operation::AcquireMutex).map(|event| event.actor).collect();
    assert_eq!(acquired, [Actor::Thread(0), Actor::Thread(1)]);
    let data = data(&outcome);
    let held = |lane: usize| {
        let name = data["lanes"][lane]["name"].as_str().unwrap();
        spans(&data, name).into_iter().filter(|span| span.what == HOLD).collect::<Vec<_>>()
    };
    let (first, second) = (held(2), held(3));
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_eq!(first[0].object, second[0].object);
    assert!(first[0].end <= second[0].begin, "{first:?} {second:?}");
}

/// A processor that turns is seen, and so is a DPC that interrupts a thread, and the timer that queued it.
#[test]
fn spinning_dpcs_and_timers() {
    let turned = (0..50).any(|seed| {
        let outcome = Machine::new().processors(2).seed(seed).run(|| {
            let lock = SpinLock::new();
            let work = || (0..3).for_each(|_| lock.with(|| {}));
            let thread = spawn(work);
            work();
            thread.join();
        });
        let data = data(&outcome.expect_clean());
        let lane = spans(&data, "processor 0").into_iter().chain(spans(&data, "processor 1"));
        lane.filter(|span| span.what == SPIN).all(|span| span.irql == 2)
            && spans(&data, "processor 0").iter().any(|span| span.what == SPIN)
    });
    assert!(turned, "no schedule of 50 had the first processor turn on the lock");

    let outcome = Machine::new().run(|| {
        let timer = Timer::notification();
        let dpc = Dpc::new(|| {});
        timer.set_with(-10 * MS, 0, dpc.ptr());
        sleep(20 * MS);
    });
    let data = data(&outcome.expect_clean());
    let armed = spans(&data, "clock").into_iter().find(|span| span.what == ARMED).expect("the timer was armed");
    assert_eq!((operation(&data, armed.begin), operation(&data, armed.end)), ("set timer", "timer expired"));
    let ran = spans(&data, "processor 0").into_iter().find(|span| span.what == DPC).expect("the DPC ran");
    assert_eq!((operation(&data, ran.begin), operation(&data, ran.end), ran.irql), ("run DPC", "end DPC", 2));
}

#[test]
fn a_failure_is_marked_with_its_source_line() {
    let outcome = Machine::new().record_sites(true).run(|| {
        sleep(MS);
        raw!(KeBugCheckEx(0xe2, 1, 2, 3, 4));
    });
    let data = data(&outcome);
    assert_eq!(data["end"]["headline"], "STOP 0xe2 MANUALLY_INITIATED_CRASH");
    assert_eq!((&data["failure"]["processor"], &data["failure"]["threads"]), (&0.into(), &serde_json::json!([0])));
    let frame = &data["failure"]["frames"][0];
    let key = format!("{}:{}", frame["file"].as_str().unwrap(), frame["line"]);
    let excerpt = &data["sources"][&key];
    let line = frame["line"].as_u64().unwrap() - excerpt["first"].as_u64().unwrap();
    assert!(excerpt["lines"][line as usize].as_str().unwrap().contains("KeBugCheckEx(0xe2"), "{excerpt}");
    // Steps have theirs.
    let sites = data["events"]["site"].as_array().unwrap();
    let delay = (0..sites.len() as u64).find(|&step| operation(&data, step) == "delay").expect("it slept");
    let frames = &data["sites"][sites[delay as usize].to_string()];
    assert!(
        frames.as_array().unwrap().iter().any(|frame| frame["function"].as_str().unwrap().contains("source_line")),
        "{frames}"
    );
}

#[test]
fn a_deadlock_and_a_panic_are_marked() {
    let outcome = Machine::new().run(|| {
        let event = Event::synchronization();
        wait(event.object());
    });
    assert_eq!(data(&outcome)["failure"]["threads"], serde_json::json!([0]));
    let outcome = Machine::new().run(|| panic!("</script> is no end"));
    assert_eq!(data(&outcome)["end"]["summary"], "</script> is no end");
    assert!(data(&outcome)["failure"]["frames"][0]["file"].as_str().unwrap().ends_with("timeline.rs"));
}

#[test]
fn a_run_without_a_trace_has_a_page_too() {
    let outcome = Machine::new().record_trace(false).run(|| {
        sleep(MS);
    });
    let data = data(&outcome.expect_clean());
    assert_eq!(data["events"]["time"], serde_json::json!([]));
    assert_eq!(data["end"]["kind"], "clean");
}

/// The page is one file: it names nothing that a browser would load.
#[test]
fn the_page_needs_nothing_else() {
    let html = Machine::new().run(|| {}).timeline();
    assert!(html.contains("default-src 'none'"));
    for reference in ["src=", "href=", "@import", "url(", "fetch(", "XMLHttpRequest", "import("] {
        assert!(!html.contains(reference), "{reference}");
    }
    // Written twice, it is the same.
    assert_eq!(html, Machine::new().run(|| {}).timeline());
}

#[test]
fn timelines_are_written_to_files() {
    let outcome = Machine::new().run(|| {});
    let path = std::env::temp_dir().join(format!("ksim-timeline-{}.html", std::process::id()));
    outcome.write_timeline(&path).expect("the file can be written");
    let written = std::fs::read_to_string(&path).expect("it is there");
    std::fs::remove_file(&path).expect("it can be removed");
    assert_eq!(written, outcome.timeline());
    assert!(outcome.write_timeline(path.join("no/such/folder.html")).is_err());
}

/// The trace-event file of a run, checked against the rules of the format that every event must keep.
fn trace_events(outcome: &Outcome) -> Vec<Value> {
    let path = std::env::temp_dir().join(format!("ksim-{}-{:?}.json", std::process::id(), std::thread::current().id()));
    outcome.write_trace_events(&path).expect("the file can be written");
    let text = std::fs::read_to_string(&path).expect("it is there");
    std::fs::remove_file(&path).expect("it can be removed");
    let file: Value = serde_json::from_str(&text).expect("it is JSON");
    let events = file["traceEvents"].as_array().expect("the events are a list").clone();
    let mut tracks: std::collections::BTreeMap<(u64, u64), Vec<(f64, f64)>> = Default::default();
    let mut open = std::collections::BTreeMap::new();
    for event in &events {
        let (process, thread) = (event["pid"].as_u64().expect("a process"), event["tid"].as_u64().expect("a thread"));
        assert!(event["name"].is_string(), "{event}");
        match event["ph"].as_str().expect("a phase") {
            "M" => {
                assert!(["process_name", "thread_name"].contains(&event["name"].as_str().unwrap()), "{event}");
                assert!(event["args"]["name"].is_string(), "{event}");
                continue;
            }
            "X" => {
                let (begin, length) = (event["ts"].as_f64().expect("a time"), event["dur"].as_f64().expect("a length"));
                assert!(begin >= 0.0 && length > 0.0, "{event}");
                tracks.entry((process, thread)).or_default().push((begin, begin + length));
            }
            "i" => assert!(["t", "p", "g"].contains(&event["s"].as_str().expect("a scope")), "{event}"),
            phase @ ("b" | "e") => {
                let key = (process, event["cat"].to_string(), event["id"].as_str().expect("an id").to_owned());
                let time = event["ts"].as_f64().expect("a time");
                if phase == "b" {
                    assert!(open.insert(key, time).is_none(), "{event}");
                } else {
                    assert!(open.remove(&key).expect("it began") < time, "{event}");
                }
            }
            phase => panic!("no such phase: {phase}"),
        }
        assert!(event["cat"].is_string() && event["ts"].is_f64(), "{event}");
        assert!(event["args"].is_object(), "{event}");
    }
    assert!(open.is_empty(), "{open:?}");
    // Complete events of one track nest, and here do not overlap at all.
    for spans in tracks.values_mut() {
        spans.sort_by(|one, other| one.0.total_cmp(&other.0));
        assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0 + 1e-9), "{spans:?}");
    }
    events
}

#[test]
fn trace_events_keep_the_rules_of_the_format() {
    let outcome = Machine::new().processors(3).record_sites(true).run(|| {
        let event = Event::synchronization();
        let lock = SpinLock::new();
        let timer = Timer::notification();
        let dpc = Dpc::new(|| {});
        timer.set_with(-MS, 1, dpc.ptr());
        let threads = [0, 1].map(|_| {
            spawn(|| {
                lock.with(|| {});
                wait(event.object());
            })
        });
        for _ in 0..2 {
            sleep(2 * MS);
            event.set();
        }
        join_all(threads);
        timer.cancel();
    });
    let outcome = outcome.expect_clean();
    let events = trace_events(&outcome);
    let named = |what: &str, phase: &str| {
        events.iter().filter(|event| event["ph"] == phase && event["name"].as_str().unwrap().starts_with(what)).count()
    };
    assert_eq!(events.iter().filter(|event| event["name"] == "process_name").count(), 3);
    // A track for the clock, each processor and each thread.
    assert_eq!(events.iter().filter(|event| event["name"] == "thread_name").count(), 1 + 3 + 3);
    // Every operation, and the end.
    assert_eq!(events.iter().filter(|event| event["ph"] == "i").count(), outcome.trace_len() + 1);
    assert!(named("thread #", "X") > 0 && named("waits for event", "X") > 0 && named("DPC #", "X") > 0);
    assert!(named("spin lock #", "b") >= 2 && named("timer #", "b") > 2);
    let locked = events.iter().find(|event| event["name"] == "acquire spin lock").expect("a lock was acquired");
    // In release builds it is part of its caller.
    assert!(locked["args"]["site"].as_str().unwrap().contains("SpinLock::"), "{locked}");
    // The order of time is that of the trace.
    let times: Vec<_> = events.iter().filter(|event| event["ph"] == "i").map(|event| event["ts"].as_f64().unwrap()).collect();
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn trace_events_of_failures_and_of_nothing() {
    let outcome = Machine::new().run(|| raw!(KeBugCheckEx(0xe2, 1, 2, 3, 4)));
    let events = trace_events(&outcome);
    let last = events.last().unwrap();
    assert!(last["name"].as_str().unwrap().contains("MANUALLY_INITIATED_CRASH"), "{last}");
    assert_eq!((&last["pid"], &last["tid"], &last["s"]), (&2.into(), &1.into(), &"t".into()));
    let outcome = Machine::new().record_trace(false).run(|| {});
    assert_eq!(trace_events(&outcome).last().unwrap()["name"], "end");
}

#[test]
fn a_step_that_prints_has_its_text() {
    let outcome = Machine::new().run(|| {
        raw!(DbgPrint(c"one %d\n".as_ptr(), 1_i32));
        Event::notification().set();
        raw!(DbgPrint(c"two".as_ptr()));
    });
    let data = data(&outcome);
    let printed = data["events"]["printed"].as_object().unwrap();
    assert_eq!(printed.values().map(|text| text.as_str().unwrap()).collect::<Vec<_>>(), ["one 1", "two"]);
    for step in printed.keys() {
        assert_eq!(operation(&data, step.parse().unwrap()), "debug print");
    }
    let events = trace_events(&outcome);
    let texts = events.iter().filter_map(|event| event["args"]["text"].as_str());
    assert_eq!(texts.collect::<Vec<_>>(), ["one 1", "two"]);
}
