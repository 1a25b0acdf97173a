//! `cargo xtask timeline`: the timelines that the hosted kernel writes, tried in Chromium.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::process;
use crate::workspace::Workspace;

/// How long the example may take that writes the timelines.
const WRITE_LIMIT: Duration = Duration::from_secs(300);

/// A run of more than 100,000 steps: how long its page may take to load, to draw (the middle of many times), to search. A busy machine takes ten times what a free one does.
const LOAD_LIMIT: Duration = Duration::from_secs(20);
const DRAW_LIMIT: f64 = 100.0;
const SEARCH_LIMIT: f64 = 5000.0;

/// The expression that holds once a page has drawn.
const READY: &str = "document.documentElement?.dataset.ready === 'true'";

/// Writes the timelines of the example, and tries each. Pictures of them go to `pictures`, where that is given.
pub(crate) fn run(workspace: &Workspace, pictures: Option<&Path>) -> Result<()> {
    let folder = workspace.target().join("timelines");
    let mut write = workspace.cargo();
    write.args(["run", "--release", "--package", "tour", "--example", "timelines", "--"]).arg(&folder);
    process::tee(&mut write, WRITE_LIMIT)?;

    let browser = Browser::start(&folder, 1440, 900)?;
    let mut page = Page { browser, name: "", folder, pictures: pictures.map(Path::to_owned) };
    if let Some(pictures) = pictures {
        std::fs::create_dir_all(pictures).with_context(|| format!("cannot create {}", pictures.display()))?;
    }
    for name in ["clean", "deadlock", "bug-check", "tour"] {
        page.open(name)?;
        page.shows_the_run().with_context(|| format!("the timeline `{name}`"))?;
        page.shoot()?;
    }
    page.open("bug-check")?;
    page.marks_the_failure().context("the failure's mark")?;
    page.goes_by_keyboard().context("the keyboard")?;
    page.searches().context("the search")?;
    page.goes_by_mouse().context("the mouse")?;
    page.is_seen_closely()?;
    page.is_accessible().context("accessibility")?;
    page.knows_the_dark().context("the dark scheme")?;
    page.is_quick().context("a long run")?;
    ensure!(page.browser.complaints.is_empty(), "the pages complained: {:#?}", page.browser.complaints);
    println!("the timelines are as they should be");
    Ok(())
}

struct Page {
    browser: Browser,
    name: &'static str,
    folder: PathBuf,
    pictures: Option<PathBuf>,
}

impl Page {
    fn open(&mut self, name: &'static str) -> Result<Duration> {
        self.name = name;
        // The page before this one is ready too: its mark must not be taken for this one's.
        self.browser.open("about:blank", "true")?;
        let url = format!("file://{}/{name}.html", self.folder.display());
        self.browser.open(&url, &format!("{READY} && location.pathname.endsWith('/{name}.html')"))
    }

    fn get(&mut self, expression: &str) -> Result<Value> {
        self.browser.evaluate(expression)
    }

    fn number(&mut self, expression: &str) -> Result<f64> {
        let value = self.get(expression)?;
        value.as_f64().with_context(|| format!("`{expression}` is {value}, and no number"))
    }

    /// What an expression must be.
    fn is(&mut self, expression: &str, wanted: Value) -> Result<()> {
        let value = self.get(expression)?;
        let same = match (value.as_f64(), wanted.as_f64()) {
            (Some(value), Some(wanted)) => value == wanted,
            _ => value == wanted,
        };
        ensure!(same, "`{expression}` is {value}, and should be {wanted}");
        Ok(())
    }

    fn holds(&mut self, expression: &str) -> Result<()> {
        self.is(expression, json!(true))
    }

    /// Pictures in both schemes.
    fn shoot(&mut self) -> Result<()> {
        self.shoot_as(self.name)
    }

    fn shoot_as(&mut self, name: &str) -> Result<()> {
        let Some(pictures) = self.pictures.clone() else { return Ok(()) };
        for scheme in ["light", "dark"] {
            self.browser.color_scheme(scheme)?;
            self.browser.screenshot(&pictures.join(format!("{name}-{scheme}.png")))?;
        }
        self.browser.color_scheme("light")
    }

    /// The lanes and the verdict are those of the run.
    fn shows_the_run(&mut self) -> Result<()> {
        self.is("lanes.filter((lane) => lane.kind === 'processor').length", json!(3))?;
        self.holds("lanes.length === 3 + data.threads.length + 1")?;
        self.holds("lanes.filter((lane) => lane.kind === 'thread').every((lane) => lane.steps.length > 0)")?;
        let (badge, fails) = match self.name {
            "clean" | "tour" => ("clean", false),
            _ => ("failed", true),
        };
        self.is("document.getElementById('badge').textContent", json!(badge))?;
        self.is("document.getElementById('to-failure').hidden", json!(!fails))?;
        self.is("run.failure >= 0", json!(fails))?;
        let headline = match self.name {
            "deadlock" => "Deadlock",
            "bug-check" => "STOP 0xc4 DRIVER_VERIFIER_DETECTED_VIOLATION",
            _ => "Completed",
        };
        self.is("document.querySelector('h1').textContent", json!(headline))?;
        // Every lane has something on it, in the colours of the levels: here the first processor's.
        self.holds(
            "(() => { const scale = canvas.width / view.width; \
             const y = Math.round((RULER + lanes[0].y + LANE_GAP / 2 + 3) * scale); \
             const row = context.getImageData(Math.round(GUTTER * scale), y, canvas.width - Math.round(GUTTER * scale), 1).data; \
             const seen = new Set(); \
             for (let i = 0; i < row.length; i += 4) seen.add(`${row[i]},${row[i + 1]},${row[i + 2]}`); \
             return seen.size >= 3; })()",
        )
    }

    fn marks_the_failure(&mut self) -> Result<()> {
        self.browser.key("Escape", false)?;
        self.is("view.selected", json!(-1))?;
        self.browser.key("f", false)?;
        self.holds("view.selected === run.failure && view.selected === run.steps - 1")?;
        self.holds("failedLanes.size === 2 && failedLanes.has(view.lane)")?;
        self.holds("document.getElementById('live').textContent.startsWith('Failure: STOP 0xc4')")?;
        // The source line that made the call, marked.
        self.holds("document.querySelector('pre.failure .here').textContent.includes('KeEnterCriticalRegion')")?;
        self.holds("document.querySelector('.list .failed.selected') !== null")?;
        self.holds("xOfStep(run.failure) >= GUTTER && xOfStep(run.failure) < view.width")
    }

    fn goes_by_keyboard(&mut self) -> Result<()> {
        self.get("canvas.focus()")?;
        self.browser.key("Home", false)?;
        self.is("view.selected", json!(0))?;
        self.browser.key("ArrowRight", false)?;
        self.browser.key("ArrowRight", false)?;
        self.browser.key("ArrowLeft", false)?;
        self.is("view.selected", json!(1))?;
        self.holds("document.getElementById('live').textContent.startsWith('Step 1:')")?;
        self.browser.key("End", false)?;
        self.holds("view.selected === run.steps - 1")?;
        // Lanes, and the steps of one.
        self.get("select(0, 0)")?;
        let lane = self.number("view.lane")?;
        self.browser.key("ArrowDown", false)?;
        self.is("view.lane", json!(lane + 1.0))?;
        self.browser.key("ArrowUp", false)?;
        self.is("view.lane", json!(lane))?;
        let last_thread = self.number("lanes.length - 2")?;
        self.get(&format!("(view.lane = {last_thread}, view.selected = 0)"))?;
        self.browser.key("ArrowRight", true)?;
        self.holds(&format!("view.selected === lanes[{last_thread}].steps[0] && view.lane === {last_thread}"))?;
        // The view.
        self.browser.key("0", false)?;
        self.holds("view.from === 0 && view.to === axisEnd()")?;
        self.browser.key("+", false)?;
        self.holds("Math.abs((view.to - view.from) * 2 - axisEnd()) < 1e-6")?;
        self.browser.key("-", false)?;
        self.holds("view.from === 0 && view.to === axisEnd()")?;
        self.browser.key("t", false)?;
        self.holds("view.axis === 'time' && document.querySelector('[value=time]').checked")?;
        self.holds("view.position.every((at, i) => i === 0 || at >= view.position[i - 1])")?;
        self.browser.key("t", false)?;
        self.is("view.axis", json!("steps"))?;
        self.browser.key("?", false)?;
        self.holds("help.open")?;
        self.get("help.close()").map(drop)
    }

    fn searches(&mut self) -> Result<()> {
        self.browser.key("Escape", false)?;
        self.browser.key("/", false)?;
        self.holds("document.activeElement === search")?;
        self.browser.call("Input.insertText", json!({ "text": "acquire spin DISPATCH" }))?;
        self.browser.key("Enter", false)?;
        self.holds("view.matches.length > 5 && view.selected === view.matches[0]")?;
        self.holds("[...view.matches].every((step) => operationOf(step) === 'acquire spin lock' && run.irql[step] === 2)")?;
        self.holds(
            "view.matches.length === [...run.operation.keys()].filter((step) => operationOf(step) === 'acquire spin lock' && run.irql[step] === 2).length",
        )?;
        self.holds("document.getElementById('matches').textContent.startsWith('1 of ')")?;
        self.browser.key("Enter", false)?;
        self.holds("view.selected === view.matches[1]")?;
        // A number is a whole one.
        self.get("setSearch('#1')")?;
        self.holds("[...view.matches].every((step) => /#1(?!\\d)/.test(searchText(step)))")?;
        self.get("setSearch('nothing has this name')")?;
        self.is("document.getElementById('matches').textContent", json!("nothing"))?;
        self.browser.key("Escape", false)?;
        self.holds("search.value === '' && view.matches.length === 0 && listed() === run.steps")
    }

    fn goes_by_mouse(&mut self) -> Result<()> {
        self.get("(select(-1), fit())")?;
        self.browser.settle()?;
        let left = self.number("canvas.getBoundingClientRect().left")?;
        let top = self.number("canvas.getBoundingClientRect().top")?;
        // A step of a lane that is in view.
        self.get("scroller.scrollTop = 0")?;
        let step = self.number("lanes[0].steps[40]")?;
        self.get(&format!("show({step} - 10, {step} + 10)"))?;
        self.browser.settle()?;
        let x = self.number(&format!("xOf(middleOf({step}))"))?;
        let y = self.number("RULER + lanes[0].y + LANE_GAP / 2 + 8")?;
        self.browser.click(left + x, top + y)?;
        self.is("view.selected", json!(step))?;
        self.is("view.lane", json!(0))?;
        self.holds("document.querySelector('.detail h2').textContent === operationText(view.selected)")?;
        // A row of the list.
        let row = "document.querySelectorAll('.list .row')[2]";
        let x = self.number(&format!("{row}.getBoundingClientRect().left"))?;
        let y = self.number(&format!("{row}.getBoundingClientRect().top"))?;
        let wanted = self.get(&format!("{row}.id"))?;
        self.browser.click(x + 30.0, y + 10.0)?;
        self.is("`step-${view.selected}`", wanted)
    }

    /// Pictures of what is not there at first: a part of the run, with a search and the tip under the pointer.
    fn is_seen_closely(&mut self) -> Result<()> {
        self.get("(select(run.failure - 40), show(run.failure - 70, run.failure + 1), setSearch('spin lock'))")?;
        let x = self.number("canvas.getBoundingClientRect().left + xOf(middleOf(run.failure - 30))")?;
        let y = self.number("canvas.getBoundingClientRect().top + RULER + lanes[0].y + 14")?;
        self.browser.call("Input.dispatchMouseEvent", json!({ "type": "mouseMoved", "x": x, "y": y }))?;
        self.browser.settle()?;
        self.holds("!tip.hidden && tip.textContent.includes('step ')")?;
        self.shoot_as("closely")?;
        self.get("setSearch('')").map(drop)
    }

    fn is_accessible(&mut self) -> Result<()> {
        self.holds(
            "[...document.querySelectorAll('button, input, canvas[role]')].every((control) => \
             (control.getAttribute('aria-label') || control.textContent.trim() || control.labels?.[0]?.textContent.trim()))",
        )?;
        self.holds("document.documentElement.lang === 'en' && document.title.includes(data.end.headline)")?;
        self.holds("canvas.tabIndex === 0 && list.tabIndex === 0 && document.getElementById('live').ariaLive === 'polite'")?;
        self.get("select(3)")?;
        self.holds("document.getElementById(list.getAttribute('aria-activedescendant')).ariaSelected === 'true'")?;
        // Text can be read on what it stands on: 4.5 to 1, by WCAG 2.
        for scheme in ["light", "dark"] {
            self.browser.color_scheme(scheme)?;
            let contrasts = self.get(CONTRASTS)?;
            for pair in contrasts.as_array().context("no contrasts")? {
                let ratio = pair[2].as_f64().unwrap_or_default();
                ensure!(ratio >= 4.5, "{scheme}: {} on {} has a contrast of {ratio:.2}", pair[0], pair[1]);
            }
        }
        self.browser.color_scheme("light")
    }

    fn knows_the_dark(&mut self) -> Result<()> {
        let corner = "[...context.getImageData(canvas.width - 4, 4, 1, 1).data].slice(0, 3).reduce((a, b) => a + b)";
        self.browser.color_scheme("light")?;
        let light = self.number(corner)?;
        self.browser.color_scheme("dark")?;
        let dark = self.number(corner)?;
        self.browser.color_scheme("light")?;
        ensure!(light > 700.0 && dark < 150.0, "the paper is {light} of 765 in the light, and {dark} in the dark");
        Ok(())
    }

    fn is_quick(&mut self) -> Result<()> {
        let begin = Instant::now();
        self.open("long")?;
        let load = begin.elapsed();
        let steps = self.number("run.steps")?;
        ensure!(steps >= 100_000.0, "the long run has only {steps} steps");
        let draw = self.number(
            "(() => { const times = []; fit(); \
             for (let i = 0; i < 60; i++) { zoom(i < 30 ? 0.7 : 1.4); draw(); times.push(view.drawTime); } \
             fit(); draw(); times.push(view.drawTime); \
             return times.sort((a, b) => a - b)[30]; })()",
        )?;
        let search = self.number(
            "(() => { const begin = performance.now(); setSearch('release spin'); return performance.now() - begin; })()",
        )?;
        self.holds("view.matches.length > 1000")?;
        self.get("setSearch('')")?;
        self.holds("document.querySelectorAll('.list .row').length < 60")?;
        self.browser.key("End", false)?;
        self.holds("document.getElementById(`step-${run.steps - 1}`) !== null")?;
        self.get("(select(-1), fit())")?;
        self.browser.settle()?;
        self.shoot()?;
        println!("RESULT timeline.steps {steps} steps");
        println!("RESULT timeline.load {:.0} ms", load.as_secs_f64() * 1000.0);
        println!("RESULT timeline.draw {draw:.1} ms");
        println!("RESULT timeline.search {search:.0} ms");
        ensure!(load <= LOAD_LIMIT, "it took {load:?} to load");
        ensure!(draw <= DRAW_LIMIT, "a frame took {draw:.1} ms");
        ensure!(search <= SEARCH_LIMIT, "a search took {search:.0} ms");
        Ok(())
    }
}

/// The colours of text with what they stand on, and the contrast of each pair.
const CONTRASTS: &str = "(() => {
  const style = getComputedStyle(document.documentElement);
  const light = (name) => {
    const hex = style.getPropertyValue(`--${name}`).trim().slice(1);
    const parts = [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255);
    const [r, g, b] = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const pairs = [
    ['text', 'panel'], ['text', 'page'], ['text', 'accent-soft'], ['muted', 'panel'], ['muted', 'band'], ['accent', 'panel'], ['danger', 'panel'],
    ['danger', 'danger-soft'], ['good', 'good-soft'], ['warn', 'warn-soft'], ['on-wait', 'wait'], ['on-wait', 'ready'], ['on-wait', 'interrupted'],
    ['on-wait', 'hold-shared'], ['on-span', 'passive'], ['on-span', 'apc'], ['on-span', 'dispatch'], ['on-span', 'device'], ['on-span', 'dpc'],
    ['on-span', 'hold'], ['on-span', 'armed'],
  ];
  return pairs.map(([text, paper]) => {
    const [a, b] = [light(text), light(paper)].sort((x, y) => y - x);
    return [text, paper, (a + 0.05) / (b + 0.05)];
  });
})()";
