//! The layout of stored data: one number for both stores, raised when a release writes what the one before cannot read.

use thiserror::Error;

/// The layout that this release writes, and the latest that it reads.
pub const LAYOUT: u32 = 8;
/// The earliest layout that it reads in place. The embedded store brings earlier ones up to date when it is opened.
pub const OLDEST_LAYOUT: u32 = 4;

/// Why this release must leave a store alone. Nothing was changed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Unsupported {
    /// A later release has raised the layout.
    #[error(
        "the store has layout {found}, and this release knows layouts up to {LAYOUT}: use the release that raised it, or a later one"
    )]
    Newer {
        /// The store's layout.
        found: u32,
    },
    /// The store may still hold data from before the layouts that this release reads.
    #[error(
        "the store holds data of layout {found}, and this release reads layouts from {OLDEST_LAYOUT}: let an earlier release bring it \
         up to date first"
    )]
    Older {
        /// The earliest layout in the store.
        found: u32,
    },
    /// The registry has an entry that can refuse requests, of a kind that only a later release knows.
    #[error(
        "the registry has an entry that can refuse requests, of a kind that this release does not know; its log names the entry. Use \
         the release that wrote it, or a later one"
    )]
    Entry,
}

impl Unsupported {
    /// Checks the layout of a store, and the earliest layout of what it holds.
    ///
    /// # Errors
    /// This release does not know one of them.
    pub(super) const fn check(layout: u32, min_layout: u32) -> Result<(), Self> {
        if layout > LAYOUT {
            return Err(Self::Newer { found: layout });
        }
        if min_layout < OLDEST_LAYOUT {
            return Err(Self::Older { found: min_layout });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_reads_what_lies_between_its_layouts() {
        assert_eq!(Unsupported::check(LAYOUT, OLDEST_LAYOUT), Ok(()));
        assert_eq!(
            Unsupported::check(LAYOUT + 1, OLDEST_LAYOUT),
            Err(Unsupported::Newer { found: LAYOUT + 1 })
        );
        let older = Unsupported::check(LAYOUT, OLDEST_LAYOUT - 1).unwrap_err();
        assert_eq!(older, Unsupported::Older { found: OLDEST_LAYOUT - 1 });
        assert!(
            older.to_string().contains("data of layout 3, and this release reads layouts from 4"),
            "{older}"
        );
    }
}
