//! The rows as a table that fits the terminal.

use std::env;
use std::io::{self, IsTerminal};

use crate::nodes::Row;
use lb_core::os::escape::Quoted;

/// How the text is shown.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Whether to use colors.
    colour: bool,
    /// Maximum length of a line, if limited.
    width: Option<usize>,
}

/// Width if there is no terminal, or one that does not tell its size: Docker's has none in its first moments.
const WIDTH: usize = 80;

impl Style {
    /// No color and no width limit.
    pub const PLAIN: Self = Self { colour: false, width: None };

    /// The style for standard output: as wide as the terminal, without limit if it is to be `wide`; no color unless it is a
    /// terminal (see also no-color.org).
    #[must_use]
    pub fn of_stdout(wide: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
        let of_terminal = || terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        let width = of_terminal().filter(|width| terminal && *width > 0).unwrap_or(WIDTH);
        Self { colour: terminal && !no_colour && !dumb, width: (!wide).then_some(width) }
    }

    /// The text in a color.
    #[must_use]
    pub fn paint(self, colour: Colour, text: &str) -> String {
        if self.colour { format!("\x1b[{}m{text}\x1b[0m", colour as u8) } else { text.to_owned() }
    }
}

/// The colors used, by number (ECMA-48, "select graphic rendition").
#[derive(Debug, Clone, Copy)]
pub enum Colour {
    /// Column headers.
    Bold = 1,
    /// Something is wrong.
    Red = 31,
    /// As expected.
    Green = 32,
    /// In transition.
    Yellow = 33,
}

struct Column {
    head: &'static str,
    /// The state that it shows.
    state: &'static str,
    /// Columns with the highest rank are dropped first when the terminal is narrow.
    rank: usize,
    cell: fn(&Row) -> String,
}

/// The column that is only there if there are several services.
const SERVICE: &str = "SERVICE";

const COLUMNS: [Column; 12] = [
    Column { head: "NAME", state: "", rank: 0, cell: |row| printable(&row.name) },
    Column { head: "CONTAINER", state: "", rank: 4, cell: |row| or_dash(row.container.as_ref()) },
    Column { head: SERVICE, state: "", rank: 3, cell: |row| or_dash(row.service.as_ref()) },
    Column { head: "ADDRESS", state: "", rank: 6, cell: |row| or_dash(row.address.as_ref()) },
    Column { head: "PORT", state: "", rank: 9, cell: |row| or_dash(row.port.as_ref()) },
    Column { head: "WEIGHT", state: "", rank: 7, cell: weight },
    Column { head: "MEMBER", state: "members", rank: 1, cell: |row| or_dash(row.member.as_ref()) },
    Column { head: "REGISTRY", state: "registry", rank: 2, cell: |row| yes(row.in_registry) },
    Column { head: "FILE", state: "file", rank: 2, cell: |row| yes(row.in_file) },
    Column { head: "HAPROXY", state: "HAProxy", rank: 1, cell: |row| of_servers(row, |server| Some(server.state.clone())) },
    Column {
        head: "SESSIONS",
        state: "HAProxy",
        rank: 5,
        cell: |row| if row.servers.is_empty() { "-".to_owned() } else { row.sessions().to_string() },
    },
    Column { head: "LAST CHECK", state: "HAProxy", rank: 8, cell: |row| of_servers(row, |server| server.last_check.clone()) },
];

fn weight(row: &Row) -> String {
    if row.drains { "drain".to_owned() } else { or_dash(row.weight.as_ref()) }
}

fn or_dash(text: Option<&String>) -> String {
    text.filter(|text| !text.is_empty()).map_or_else(|| "-".to_owned(), |text| printable(text))
}

fn yes(yes: bool) -> String {
    if yes { "yes" } else { "-" }.to_owned()
}

/// A value of a node's servers, shown once if all are the same.
fn of_servers(row: &Row, what: fn(&crate::nodes::RunningServer) -> Option<String>) -> String {
    let mut words: Vec<String> = row.servers.iter().filter_map(what).collect();
    words.dedup();
    or_dash(Some(&words.join(", ")))
}

/// Untrusted text as it is, or quoted if it could affect the terminal.
#[must_use]
pub fn printable(text: &str) -> String {
    if text.chars().all(|c| (' '..='~').contains(&c)) && text.len() <= 128 { text.to_owned() } else { Quoted(text).to_string() }
}

/// The table, with a mark in front of the rows for which `marked` is true. States in `unknown` are shown as `?`.
#[must_use]
pub fn table(rows: &[&Row], marked: impl Fn(&Row) -> bool, unknown: &[&str], style: Style) -> String {
    let cell = |column: &Column, row: &Row| if unknown.contains(&column.state) { "?".to_owned() } else { (column.cell)(row) };
    let services = rows.iter().any(|row| row.other_service().is_some());
    let shown = COLUMNS.iter().filter(|column| services || column.head != SERVICE);
    let mut columns: Vec<(&Column, Vec<String>)> =
        shown.map(|column| (column, rows.iter().map(|row| cell(column, row)).collect())).collect();
    let width = |(column, cells): &(&Column, Vec<String>)| {
        cells.iter().map(|cell| cell.chars().count()).chain([column.head.len()]).max().unwrap_or(0)
    };
    let total = |columns: &[(&Column, Vec<String>)]| columns.iter().map(|column| width(column) + 2).sum::<usize>();
    while style.width.is_some_and(|limit| total(&columns) > limit) && columns.len() > 1 {
        let last = columns.iter().map(|(column, _)| column.rank).max().unwrap_or(0);
        columns.retain(|(column, _)| column.rank < last);
    }
    // Each only once: thousands of rows have thousands of cells in each column.
    let widths: Vec<usize> = columns.iter().map(width).collect();
    let padding = |width: usize, cell: &str| " ".repeat(width - cell.chars().count() + 2);
    let head = |(column, width): (&(&Column, Vec<String>), &usize)| {
        style.paint(Colour::Bold, column.0.head) + &padding(*width, column.0.head)
    };
    let mut text = format!("  {}\n", columns.iter().zip(&widths).map(head).collect::<String>().trim_end());
    for (number, row) in rows.iter().enumerate() {
        let mut line = if marked(row) { style.paint(Colour::Red, "!") + " " } else { "  ".to_owned() };
        for (column, width) in columns.iter().zip(&widths) {
            let cell = column.1.get(number).map_or("", String::as_str);
            line += &match column.0.head {
                "HAPROXY" | "MEMBER" => paint_state(style, cell),
                _ => cell.to_owned(),
            };
            line += &padding(*width, cell);
        }
        text += &format!("{}\n", line.trim_end());
    }
    text
}

fn paint_state(style: Style, state: &str) -> String {
    let colour = match state {
        "-" | "?" | "no check" => return state.to_owned(),
        "alive" => Colour::Green,
        "failed" => Colour::Red,
        state if state.contains("DOWN") => Colour::Red,
        state if state.starts_with("UP") => Colour::Green,
        _ => Colour::Yellow,
    };
    style.paint(colour, state)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str) -> Row {
        let text = |text: &str| Some(text.to_owned());
        Row { name: name.to_owned(), address: text("172.18.0.2"), member: text("alive"), in_file: true, ..Row::default() }
    }

    #[test]
    fn columns_are_as_wide_as_they_need_and_marks_come_first() {
        let (a, b) = (row("a"), row("a-long-name"));
        let text = table(&[&a, &b], |row| row.name == "a", &[], Style::PLAIN);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("  NAME         CONTAINER  ADDRESS     PORT"), "{text}");
        assert!(lines[1].starts_with("! a            -          172.18.0.2  -   "), "{text}");
        assert!(lines[2].starts_with("  a-long-name  -          172.18.0.2  -   "), "{text}");
        assert!(!text.contains('\x1b'), "{text:?}");
        let text = table(&[&a], |_| false, &["members", "HAProxy"], Style::PLAIN);
        assert!(text.ends_with("  ?       -         yes   ?        ?         ?\n"), "{text}");
        let shop = Row { service: Some("shop".to_owned()), ..row("c") };
        let text = table(&[&a, &shop], |_| false, &[], Style::PLAIN);
        let words = |line: usize| text.lines().nth(line).unwrap().split_whitespace().nth(2).unwrap();
        assert_eq!((words(0), words(1), words(2)), ("SERVICE", "-", "shop"), "{text}");
    }

    #[test]
    fn a_narrow_terminal_gets_fewer_columns() {
        let a = row("a");
        for (width, there, gone) in
            [(200, "PORT", "?"), (95, "WEIGHT", "PORT"), (40, "MEMBER", "CONTAINER"), (10, "NAME", "MEMBER")]
        {
            let text = table(&[&a], |_| false, &[], Style { colour: false, width: Some(width) });
            assert!(text.contains(there) && !text.contains(gone), "{width}: {text}");
            assert!(text.lines().all(|line| line.len() <= width), "{width}: {text}");
        }
    }

    #[test]
    fn states_have_colours_and_no_name_has_one_of_its_own() {
        let text = table(&[&row("\x1b[31mred")], |_| true, &[], Style { colour: true, width: None });
        assert!(text.contains("'\\u{1b}[31mred'") && text.contains("\x1b[32malive"), "{text:?}");
    }
}
