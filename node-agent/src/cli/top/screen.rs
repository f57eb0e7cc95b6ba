//! One frame on a terminal of any size.

use ratatui::Frame as Terminal;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Row, Table, TableState};

use super::meter::{Frame, HEADER, Rate, busiest};
use crate::cli::output::{Colours, printable};

/// By what the rows are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Bytes,
    Connections,
}

/// What is on the screen.
#[derive(Debug)]
pub(super) struct Screen {
    frame: Option<Frame>,
    trouble: Option<String>,
    order: Order,
    top: usize,
    coloured: bool,
}

impl Screen {
    pub(super) fn new(colours: Colours) -> Self {
        Self {
            frame: None,
            trouble: None,
            order: Order::Bytes,
            top: 0,
            coloured: colours.wanted(),
        }
    }

    /// Takes a new frame.
    pub(super) fn show(&mut self, frame: Frame) {
        self.frame = Some(frame);
        self.trouble = None;
        self.sort();
    }

    /// The agent did not answer: the last frame stays, and is said to be old.
    pub(super) fn trouble(&mut self, what: String) {
        self.trouble = Some(what);
    }

    /// Orders by the next thing.
    pub(super) fn next_order(&mut self) {
        self.order = match self.order {
            Order::Bytes => Order::Connections,
            Order::Connections => Order::Bytes,
        };
        self.sort();
    }

    /// Moves the rows.
    pub(super) fn scroll(&mut self, by: isize) {
        let last = self.rows().len().saturating_sub(1);
        self.top = self.top.saturating_add_signed(by).min(last);
    }

    fn sort(&mut self) {
        let by = match self.order {
            Order::Bytes => Rate::bytes,
            Order::Connections => Rate::attempts,
        };
        if let Some(frame) = &mut self.frame {
            frame.pairs.sort_by(|a, b| busiest(a, b, by));
        }
        self.scroll(0);
    }

    fn rows(&self) -> &[Rate] {
        self.frame.as_ref().map_or(&[], |frame| &frame.pairs)
    }

    pub(super) fn draw(&self, terminal: &mut Terminal<'_>) {
        let [head, body, foot] =
            Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)])
                .areas(terminal.area());
        let (text, well) = self.head();
        let colour = if well { Color::Green } else { Color::Red };
        terminal.render_widget(Line::styled(text, self.style(colour)), head);
        let header = Row::new(HEADER).style(Style::new().add_modifier(Modifier::REVERSED));
        let rows = self.rows().iter().skip(self.top).map(|rate| {
            let cells = rate.cells().map(|cell| printable(&cell));
            let row = Row::new(cells);
            if rate.failed_per_second > 0.0 {
                row.style(self.style(Color::Red))
            } else {
                row
            }
        });
        let widths = [
            Constraint::Length(3),
            Constraint::Fill(1),
            Constraint::Fill(1),
            Constraint::Length(5),
            Constraint::Length(6),
            Constraint::Length(6),
            Constraint::Length(9),
            Constraint::Length(9),
        ];
        let table = Table::new(rows, widths).header(header);
        terminal.render_stateful_widget(table, body, &mut TableState::new());
        let order = match self.order {
            Order::Bytes => "bytes",
            Order::Connections => "connections",
        };
        let keys = format!("q quit   s sort (now by {order})   up/down scroll");
        terminal.render_widget(Line::raw(keys), foot);
    }

    /// The first line, and whether all is well.
    fn head(&self) -> (String, bool) {
        match (&self.trouble, &self.frame) {
            (Some(what), _) => (printable(what), false),
            (None, None) => ("asking the agent".to_owned(), true),
            (None, Some(frame)) => {
                let ready = if frame.ready { "ready" } else { "not ready" };
                let text = format!(
                    "tramline on node {}: {ready}, {} connections, {} pairs",
                    printable(&frame.agent_node),
                    frame.connections,
                    frame.pairs.len()
                );
                (text, frame.ready)
            }
        }
    }

    fn style(&self, colour: Color) -> Style {
        if self.coloured {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }
}
