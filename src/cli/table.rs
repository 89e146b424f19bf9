//! Tables for people: columns as wide as their widest cell, numbers aligned right, colour only on request.

use std::io::{self, Write};

use crate::domain::text::disturbs;

/// How a text looks on a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Style {
    #[default]
    Plain,
    Bold,
    Dim,
    Green,
    Yellow,
    Red,
}

impl Style {
    /// `text` in this style, if `colour` is wanted.
    pub(super) fn paint(self, text: &str, colour: bool) -> String {
        let code = match self {
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Red => "31",
            Self::Plain => return text.to_owned(),
        };
        if colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Rows under headings. A heading that begins with `>` is for numbers and aligned right.
pub(super) struct Table {
    headings: Vec<String>,
    rows: Vec<(Style, Vec<String>)>,
}

impl Table {
    pub(super) fn new<'h>(headings: impl IntoIterator<Item = &'h str>) -> Self {
        Self { headings: headings.into_iter().map(str::to_owned).collect(), rows: Vec::new() }
    }

    /// Adds a row, one cell for each heading. Anything that would move the cursor or turn the direction of reading is left
    /// out.
    pub(super) fn row(&mut self, style: Style, cells: impl IntoIterator<Item = String>) {
        let plain = |cell: String| -> String { cell.chars().filter(|c| !disturbs(*c)).collect() };
        self.rows.push((style, cells.into_iter().map(plain).collect()));
    }

    /// Writes the table, each line after `indent`.
    pub(super) fn write(&self, out: &mut dyn Write, indent: &str, colour: bool) -> io::Result<()> {
        let headings: Vec<String> =
            self.headings.iter().map(|h| h.trim_start_matches('>').to_owned()).collect();
        let mut widths: Vec<usize> = headings.iter().map(|heading| heading.chars().count()).collect();
        for (_, cells) in &self.rows {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = cell.chars().count().max(*width);
            }
        }
        let head = std::iter::once((Style::Dim, &headings));
        for (style, cells) in head.chain(self.rows.iter().map(|(style, cells)| (*style, cells))) {
            let columns = cells.iter().zip(&widths).zip(&self.headings);
            let padded = columns.map(|((cell, width), heading)| match heading.starts_with('>') {
                true => format!("{cell:>width$}"),
                false => format!("{cell:<width$}"),
            });
            let line = padded.collect::<Vec<_>>().join("  ");
            writeln!(out, "{indent}{}", style.paint(line.trim_end(), colour))?;
        }
        Ok(())
    }
}

/// Rows under headings that are written as they come: a column is as wide as its widest cell so far.
pub(super) struct Columns<const N: usize> {
    headings: Option<[String; N]>,
    widths: [usize; N],
}

impl<const N: usize> Columns<N> {
    /// Columns with these headings, each at first of this width.
    pub(super) fn new(columns: [(&str, usize); N]) -> Self {
        Self {
            headings: Some(columns.map(|(heading, _)| heading.to_owned())),
            widths: columns.map(|(heading, width)| width.max(heading.chars().count())),
        }
    }

    /// Writes a row, after the headings if it is the first. Characters are left out as in a [`Table`].
    pub(super) fn write(
        &mut self,
        out: &mut dyn Write,
        (style, cells): (Style, [String; N]),
        colour: bool,
    ) -> io::Result<()> {
        let cells = cells.map(|cell| cell.chars().filter(|c| !disturbs(*c)).collect::<String>());
        for (width, cell) in self.widths.iter_mut().zip(&cells) {
            *width = cell.chars().count().max(*width);
        }
        let head = self.headings.take().map(|headings| (Style::Dim, headings));
        for (style, cells) in head.into_iter().chain([(style, cells)]) {
            let padded = cells.iter().zip(&self.widths).map(|(cell, width)| format!("{cell:<width$}"));
            let line = padded.collect::<Vec<_>>().join("  ");
            writeln!(out, "{}", style.paint(line.trim_end(), colour))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_grow_with_what_comes() {
        let (mut columns, mut out) = (Columns::new([("A", 3), ("B", 0), ("C", 0)]), Vec::new());
        for row in [["1", "2", "3"], ["four", "\u{1b}5", ""], ["6", "7", "8"]] {
            columns.write(&mut out, (Style::Plain, row.map(str::to_owned)), false).unwrap();
        }
        let expected = "A    B  C\n1    2  3\nfour  5\n6     7  8\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
