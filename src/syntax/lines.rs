//! Lines and columns of a text.

use std::cell::Cell;

/// A line and a column, both from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The line.
    pub(crate) line: usize,
    /// The column.
    pub(crate) column: usize,
}

/// The start of each line in a text.
pub(crate) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
    /// The last offset that was asked for, with its position: most questions come in the order of the text, and a line may be as long as
    /// the text.
    last: Cell<(usize, Position)>,
}

impl<'a> Lines<'a> {
    /// The lines of `text`.
    pub(crate) fn of(text: &'a str) -> Self {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = std::iter::once(0).chain(breaks.map(|(index, _)| index + 1)).collect();
        Self { text, starts, last: Cell::new((0, Position { line: 1, column: 1 })) }
    }

    /// The position of the byte `offset`.
    pub(crate) fn position(&self, offset: usize) -> Position {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = line.checked_sub(1).and_then(|index| self.starts.get(index)).copied().unwrap_or(0);
        let (known, column) = match self.last.get() {
            (known, of_known) if of_known.line == line && known <= offset => (known, of_known.column),
            _ => (start, 1),
        };
        let since = self.text.get(known..offset).unwrap_or_default();
        let position = Position { line, column: column + since.chars().count() };
        self.last.set((offset, position));
        position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_the_same_in_any_order() {
        let text = "a é b\n\nsecond é c\nlast";
        let offsets: Vec<usize> = text.char_indices().map(|(offset, _)| offset).chain([text.len()]).collect();
        let alone = |offset: usize| Lines::of(text).position(offset);
        let lines = Lines::of(text);
        for offset in offsets.iter().chain(offsets.iter().rev()) {
            assert_eq!(lines.position(*offset), alone(*offset), "{offset}");
        }
        assert_eq!(alone(4), Position { line: 1, column: 4 });
        assert_eq!(alone(text.len()), Position { line: 4, column: 5 });
    }
}
