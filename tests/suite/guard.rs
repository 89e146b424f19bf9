//! Servers of other projects that end with the test, however it ends.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

/// Waits in the shell until this process is gone, however it ended, and then ends the server: its standard input closes.
const GUARD: &str = r#"
directory=$1; shift
"$@" >"$directory/log" 2>&1 </dev/null &
server=$!
cat >/dev/null
kill -CONT $server 2>/dev/null
kill -KILL $server 2>/dev/null
wait $server 2>/dev/null
rm -rf "$directory"
"#;

/// A running server. It writes to `log` in its directory, which is gone with it.
#[derive(Debug)]
pub(crate) struct Guarded(Option<Child>);

impl Guarded {
    /// Starts `program`.
    pub(crate) fn start(directory: &Path, program: &Path, arguments: &[&str]) -> Self {
        let guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(directory)
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(Some(guard))
    }

    /// Ends the server at once.
    pub(crate) fn kill(&mut self) {
        if let Some(mut guard) = self.0.take() {
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.kill();
    }
}
