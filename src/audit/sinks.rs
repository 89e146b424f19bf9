//! The places that the log goes to.

use std::{
    fs::File,
    io::{self, Stdout, Write},
};

/// A file, the standard output, or both.
#[derive(Debug)]
pub(super) struct Sinks<F = File, O = Stdout> {
    file: Option<F>,
    out: Option<O>,
    /// Whether the file has the line that the output has not: a line that is written again after an error goes to the output alone.
    is_in_file: bool,
}

impl<F: Write, O: Write> Sinks<F, O> {
    pub(super) const fn new(file: Option<F>, out: Option<O>) -> Self {
        Self { file, out, is_in_file: false }
    }
}

impl Sinks {
    /// Makes durable what was written.
    ///
    /// # Errors
    /// Whichever fails first.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            file.sync_data()?;
        }
        self.flush()
    }
}

/// Takes a line whole or not at all.
impl<F: Write, O: Write> Write for Sinks<F, O> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(file) = self.file.as_mut().filter(|_| !self.is_in_file) {
            file.write_all(line)?;
            self.is_in_file = true;
        }
        if let Some(out) = &mut self.out {
            out.write_all(line)?;
        }
        self.is_in_file = false;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.as_mut().map_or(Ok(()), Write::flush)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails as often as this, then takes everything.
    struct Failing(u32, Vec<u8>);

    impl Write for Failing {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            if self.0 > 0 {
                self.0 -= 1;
                return Err(io::Error::other("not now"));
            }
            self.1.write(line)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_place_gets_each_line_once_whichever_fails() {
        for (file_fails, out_fails) in [(0, 0), (1, 0), (0, 1), (2, 2)] {
            let mut sinks =
                Sinks::new(Some(Failing(file_fails, Vec::new())), Some(Failing(out_fails, Vec::new())));
            for line in ["a\n", "b\n"] {
                while sinks.write_all(line.as_bytes()).is_err() {}
            }
            let (file, out) = (sinks.file.unwrap(), sinks.out.unwrap());
            assert_eq!((&*file.1, &*out.1), (&b"a\nb\n"[..], &b"a\nb\n"[..]), "{file_fails} {out_fails}");
        }
    }
}
