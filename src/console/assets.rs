//! The files that pages refer to. They are part of the program, and their names change with their content, so browsers keep them.

use std::sync::LazyLock;

use axum::{
    extract::Path,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};

/// A file.
pub(super) struct Asset {
    stem: &'static str,
    extension: &'static str,
    media_type: &'static str,
    content: &'static str,
}

/// How long browsers keep a file: a year, the most there is.
const KEPT: &str = "public, max-age=31536000, immutable";

/// The stylesheet: what the parts are made of first, then the parts, then what differs on paper and on narrow windows.
pub(super) static STYLE: LazyLock<Named> = LazyLock::new(|| {
    Asset {
        stem: "console",
        extension: "css",
        media_type: "text/css; charset=utf-8",
        content: concat!(
            include_str!("assets/tokens.css"),
            include_str!("assets/elements.css"),
            include_str!("assets/frame.css"),
            include_str!("assets/table.css"),
            include_str!("assets/chart.css"),
            include_str!("assets/form.css"),
            include_str!("assets/page.css"),
            include_str!("assets/keys.css"),
            include_str!("assets/team.css"),
            include_str!("assets/records.css"),
            include_str!("assets/decisions.css"),
            include_str!("assets/policy.css"),
            include_str!("assets/print.css"),
        ),
    }
    .named()
});
/// The script. Every page is whole without it.
pub(super) static SCRIPT: LazyLock<Named> = LazyLock::new(|| {
    Asset {
        stem: "console",
        extension: "js",
        media_type: "text/javascript; charset=utf-8",
        content: concat!(
            include_str!("assets/console.js"),
            include_str!("assets/once.js"),
            include_str!("assets/decisions.js"),
            include_str!("assets/proposal.js")
        ),
    }
    .named()
});
/// The icon.
pub(super) static ICON: LazyLock<Named> = LazyLock::new(|| {
    Asset {
        stem: "icon",
        extension: "svg",
        media_type: "image/svg+xml",
        content: include_str!("assets/icon.svg"),
    }
    .named()
});

/// A file with the name under which it is served.
pub(super) struct Named {
    name: String,
    asset: Asset,
}

impl Asset {
    /// Eight bytes of a hash tell contents apart.
    fn named(self) -> Named {
        let hash = blake3::hash(self.content.as_bytes()).to_hex();
        Named { name: format!("{}.{}.{}", self.stem, &hash[..16], self.extension), asset: self }
    }
}

impl Named {
    /// Where it is served.
    pub(super) fn address(&self) -> String {
        format!("/assets/{}", self.name)
    }

    fn answer(&self, kept: &'static str) -> Response {
        let headers = [(CONTENT_TYPE, self.asset.media_type), (CACHE_CONTROL, kept)];
        (headers, self.asset.content).into_response()
    }
}

/// The file of a name.
pub(super) async fn show(Path(name): Path<String>) -> Response {
    let found = [&*STYLE, &*SCRIPT, &*ICON].into_iter().find(|asset| asset.name == name);
    found.map_or_else(|| StatusCode::NOT_FOUND.into_response(), |asset| asset.answer(KEPT))
}

/// The icon, under the name that browsers ask for by themselves.
pub(super) async fn icon() -> Response {
    ICON.answer("public, max-age=86400")
}
