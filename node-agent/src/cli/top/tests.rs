use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};

use super::*;
use crate::cli::output::View;
use crate::observe::admin::api::TrafficRow;

fn pair(source: &str, opened: u64, failed: u64, bytes: u64) -> TrafficRow {
    TrafficRow {
        direction: "outbound".into(),
        source: source.into(),
        destination: "default/web".into(),
        opened,
        closed: opened / 2,
        failed,
        to_destination: bytes,
        to_source: bytes * 10,
    }
}

fn report(pairs: Vec<TrafficRow>) -> TrafficReport {
    TrafficReport {
        agent_node: "a".into(),
        ready: true,
        connections: 3,
        pairs,
    }
}

fn measured() -> Frame {
    let start = Instant::now();
    let mut meter = Meter::default();
    meter.measure(
        report(vec![
            pair("default/sleep", 100, 0, 0),
            pair("default/idle", 7, 0, 5),
        ]),
        start,
    );
    meter.measure(
        report(vec![
            pair("default/idle", 7, 0, 5),
            pair("default/new", 0, 4, 0),
            pair("default/sleep", 120, 0, 4096),
        ]),
        start + Duration::from_secs(2),
    )
}

fn drawn(screen: &Screen, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| screen.draw(frame)).unwrap();
    terminal.backend().to_string()
}

#[test]
fn rates_are_what_was_added_by_the_time_between() {
    let frame = measured();
    let rows: Vec<_> = frame.pairs.iter().map(Rate::cells).collect();
    let row = |cells: [&str; 8]| cells.map(str::to_owned);
    assert_eq!(
        rows,
        [
            row([
                "out",
                "default/sleep",
                "default/web",
                "60",
                "10",
                "0",
                "2.0KiB",
                "20.0KiB"
            ]),
            row(["out", "default/new", "default/web", "0", "0", "2.0", "0B", "0B"]),
            row(["out", "default/idle", "default/web", "4", "0", "0", "0B", "0B"]),
        ]
    );
}

#[test]
fn the_first_look_and_a_restarted_agent_show_no_nonsense() {
    let start = Instant::now();
    let mut meter = Meter::default();
    let first = meter.measure(report(vec![pair("a/a", 1_000, 0, 1_000)]), start);
    assert_eq!(
        (first.pairs[0].opened_per_second, first.pairs[0].open),
        (0.0, 500)
    );
    let restarted = meter.measure(
        report(vec![pair("a/a", 10, 0, 0)]),
        start + Duration::from_secs(1),
    );
    assert_eq!(restarted.pairs[0].opened_per_second, 10.0);
    let same_moment = meter.measure(
        report(vec![pair("a/a", 20, 0, 0)]),
        start + Duration::from_secs(1),
    );
    assert_eq!(same_moment.pairs[0].opened_per_second, 0.0);
}

#[test]
fn the_screen_fits_a_terminal_of_80_by_24() {
    let mut screen = Screen::new(Colours::none());
    screen.show(measured());
    let text = drawn(&screen, 80, 24);
    let lines: Vec<_> = text
        .lines()
        .map(|line| line.trim_matches('"').trim_end())
        .collect();
    assert_eq!(lines.len(), 24);
    assert_eq!(lines[0], "tramline on node a: ready, 3 connections, 3 pairs");
    assert_eq!(
        lines[1],
        "DIR SOURCE             DESTINATION       OPEN  CONN/S FAIL/S SENT/S    RECV/S"
    );
    assert_eq!(
        lines[2],
        "out default/sleep      default/web       60    10     0      2.0KiB    20.0KiB"
    );
    assert!(
        lines[23].starts_with("q quit   s sort (now by bytes)"),
        "{}",
        lines[23]
    );
}

#[test]
fn any_terminal_size_is_drawn_and_control_characters_do_nothing() {
    let mut frame = measured();
    frame.pairs[0].source = "evil\x1b[2J/\u{7}".repeat(50);
    let mut screen = Screen::new(Colours::none());
    screen.show(frame);
    for (width, height) in [(80, 24), (1, 1), (10, 2), (20, 3), (300, 100)] {
        let text = drawn(&screen, width, height);
        assert!(!text.contains('\x1b') && !text.contains('\u{7}'), "{text}");
    }
}

#[test]
fn keys_sort_scroll_and_quit() {
    let mut screen = Screen::new(Colours::none());
    screen.show(measured());
    let key = |code, modifiers| Event::Key(KeyEvent::new(code, modifiers));
    let mut press = |code| quits(&mut screen, &key(code, KeyModifiers::NONE));
    assert!(!press(KeyCode::Char('s')) && !press(KeyCode::Char('x')));
    for _ in 0..10 {
        assert!(!press(KeyCode::Down));
    }
    assert!(press(KeyCode::Char('q')) && press(KeyCode::Esc));
    assert!(quits(
        &mut screen,
        &key(KeyCode::Char('c'), KeyModifiers::CONTROL)
    ));
    assert!(!quits(&mut screen, &key(KeyCode::Char('c'), KeyModifiers::NONE)));
    let text = drawn(&screen, 80, 24);
    assert!(text.contains("now by connections"), "{text}");
    assert!(
        text.contains("default/idle"),
        "scrolling ends at the last row: {text}"
    );
    assert!(!text.contains("default/sleep"), "{text}");
}

#[test]
fn an_agent_that_stops_answering_is_said_and_the_last_numbers_stay() {
    let mut screen = Screen::new(Colours::none());
    assert!(drawn(&screen, 80, 24).contains("asking the agent"));
    screen.show(measured());
    screen.trouble("no agent answers at /run/x".into());
    let text = drawn(&screen, 80, 24);
    assert!(
        text.contains("no agent answers at /run/x") && text.contains("default/sleep"),
        "{text}"
    );
    screen.show(measured());
    assert!(!drawn(&screen, 80, 24).contains("no agent"));
}

#[test]
fn one_frame_as_text_fits_too() {
    let text = table(&measured()).text(View::plain(false));
    assert!(text.starts_with("DIR  SOURCE "), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}
