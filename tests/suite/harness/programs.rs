//! Programs beside which the service is tested.

use std::{io::Write as _, process::Command};

/// Whether `program` can be run. A machine without it skips, loudly; in CI that is a failure.
pub(crate) fn is_installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    assert!(
        found || std::env::var("CI").as_deref() != Ok("true"),
        "`{program}` is missing, and CI must not skip"
    );
    if !found {
        let notice = format!("\nSKIPPED: `{program}` is missing; .ci/tools installs it\n");
        std::io::stderr().write_all(notice.as_bytes()).unwrap();
    }
    found
}
