//! Pages of lists: bounded in number and in bytes, and resumed by a token exactly where the last one ended.

mod cursor;
mod spend;
mod token;

use prost::Message;

pub(super) use self::{
    cursor::{Cursor, SpendCursor},
    spend::{SpendPlace, cut},
    token::{ListContext, ListRequest, PageTokens},
};
use super::status::FieldErrors;

/// The most items of a page, if the request does not say.
const DEFAULT_SIZE: usize = 100;
/// The most items of any page.
const MAX_SIZE: usize = 1_000;
/// What a page may hold: 1 MiB, less some room for what stands beside the list. No default client takes more than 4 MiB.
const MAX_BYTES: usize = (1 << 20) - (16 << 10);
/// The field number and the length before each element.
const FRAME_BYTES: usize = 6;

/// The page that a request asks for.
pub(super) struct PageRequest<C> {
    /// The most items.
    pub(super) size: usize,
    /// Where the previous page ended; `None`: from the start.
    pub(super) after: Option<C>,
    /// The tokens of this list.
    pub(super) tokens: PageTokens<C>,
}

impl FieldErrors {
    /// Takes out of `request` which page it asks for.
    pub(super) fn page<R: ListRequest>(
        &mut self,
        request: &mut R,
        context: &ListContext,
    ) -> PageRequest<R::Cursor> {
        let (size, token) = request.take_page();
        let (size, tokens) = (self.page_size(size), PageTokens::of(request, context));
        let after = match token.as_str() {
            "" => None,
            token => tokens.read(token).map_err(|error| self.page_token(error)).ok(),
        };
        PageRequest { size, after, tokens }
    }

    /// More than a page can have is as much as it can have.
    fn page_size(&mut self, asked: i32) -> usize {
        match usize::try_from(asked) {
            Ok(0) => DEFAULT_SIZE,
            Ok(size) => size.min(MAX_SIZE),
            Err(_) => {
                self.add("page_size", format!("is {asked}; must not be negative"));
                DEFAULT_SIZE
            }
        }
    }
}

/// The room left on a page.
#[derive(Debug)]
struct PageBudget(usize);

impl PageBudget {
    const fn new() -> Self {
        Self(MAX_BYTES)
    }

    /// Takes the room that `element` needs, if there is enough.
    fn take(&mut self, element: &impl Message) -> bool {
        let left = self.0.checked_sub(element.encoded_len() + FRAME_BYTES);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }
}

/// As many of `items` as a page of `size` has room for, each as `show` shows it beside its place; and the place of the last
/// one, if there are more. An item that is too large for a page has one to itself.
pub(super) fn fill<T, C, M: Message>(
    items: impl IntoIterator<Item = T>,
    size: usize,
    mut show: impl FnMut(T) -> (C, M),
) -> (Vec<M>, Option<C>) {
    let mut room = PageBudget::new();
    let (mut shown, mut last) = (Vec::new(), None);
    for item in items {
        let (place, message) = show(item);
        let has_room = room.take(&message);
        if shown.len() >= size || !(has_room || shown.is_empty()) {
            return (shown, last);
        }
        if !has_room {
            room = PageBudget(0);
        }
        shown.push(message);
        last = Some(place);
    }
    (shown, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_ends_where_its_size_or_its_bytes_do() {
        let page = |lengths: &[usize], size| {
            let items = lengths.iter().enumerate();
            let (shown, last) = fill(items, size, |(place, length)| (place, "x".repeat(*length)));
            (shown.len(), last)
        };
        assert_eq!(page(&[], 5), (0, None));
        assert_eq!(page(&[1; 5], 5), (5, None));
        assert_eq!(page(&[1; 6], 5), (5, Some(4)));
        assert_eq!(page(&[300_000; 9], 1_000), (3, Some(2)));
        assert_eq!(page(&[1, 2_000_000, 1], 1_000), (1, Some(0)));
        assert_eq!(page(&[2_000_000, 1], 1_000), (1, Some(0)), "alone");
        assert_eq!(page(&[2_000_000], 1_000), (1, None));
    }

    #[test]
    fn sizes_are_coerced_and_only_a_negative_one_is_wrong() {
        for (asked, size) in [(0, 100), (1, 1), (1_000, 1_000), (1_001, 1_000), (i32::MAX, 1_000)] {
            let mut errors = FieldErrors::default();
            assert_eq!((errors.page_size(asked), errors.is_empty()), (size, true), "{asked}");
        }
        for asked in [-1, i32::MIN] {
            let mut errors = FieldErrors::default();
            errors.page_size(asked);
            assert!(errors.into_status().message().starts_with("`page_size`: is -"), "{asked}");
        }
    }
}
