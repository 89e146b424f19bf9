//! Where a person was, and will be again after signing in.

/// Below it is every page that one can return to.
const CONSOLE: &str = "/console/";
/// The most bytes of such an address; the query is the state of a page.
const MAX_LEN: usize = 1_024;

/// `address`, if it is one of a page of the console. Anything else is refused, above all what a browser would read as an address of
/// another site.
#[must_use]
pub fn return_address(address: &str) -> Option<&str> {
    // Only what stands for itself in an address: browsers drop tabs and line ends, and read `\` as `/`.
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"\\\"<>#".contains(&byte);
    if address.len() > MAX_LEN || !address.starts_with(CONSOLE) || !address.bytes().all(is_plain) {
        return None;
    }
    let path = address.split('?').next().unwrap_or_default();
    // Browsers resolve dots before they ask, also where they are escaped: that leads out of the console.
    let is_dots = |part: &str| matches!(&*part.to_ascii_lowercase().replace("%2e", "."), "." | "..");
    (!path.contains("//") && !path.split('/').any(is_dots)).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_the_console_are_returned_to() {
        for good in [
            "/console/",
            "/console/acme/",
            "/console/acme/teams/chatbot",
            "/console/acme/reports?from=2026-11-01&by=team,model",
            "/console/acme/reports?q=a//b&to=..",
            "/console/acme/keys/K%2FX?team=T",
        ] {
            assert_eq!(return_address(good), Some(good), "{good}");
        }
        for bad in [
            "",
            "/",
            "/console",
            "/auth/sign-out",
            "/consolex/",
            "//evil.example/console/",
            "///evil.example",
            "/\\evil.example",
            "\\/console/",
            "https://evil.example/console/",
            "javascript:alert(1)",
            "console/acme/",
            " /console/",
            "/console/\\evil",
            "/console//evil.example",
            "/console/../auth/sign-out",
            "/console/acme/..",
            "/console/%2e%2E/auth",
            "/console/.%2e/auth",
            "/console/./x",
            "/console/\t/evil",
            "/console/a\r\nSet-Cookie: x=1",
            "/console/a\nb",
            "/console/a b",
            "/console/ä",
            "/console/#x",
            "/console/\"><script>",
            "/console/\u{0}",
        ] {
            assert_eq!(return_address(bad), None, "{bad:?}");
        }
        assert_eq!(return_address(&format!("/console/{}", "x".repeat(MAX_LEN))), None);
    }
}
