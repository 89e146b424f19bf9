//! Questions on a terminal, a line each: what a flag did not say.

use std::io::{self, BufRead, Read as _, Write};

use super::super::screen::Failure;

/// The most bytes of an answer; a name and an amount are shorter.
const MAX_LINE: u64 = 1_024;
/// How often one question is asked.
const MAX_TIMES: u32 = 5;

/// A person, to read from and to write to.
pub(super) struct Terminal<R, W> {
    input: R,
    output: W,
}

impl<R: BufRead, W: Write> Terminal<R, W> {
    pub(super) const fn new(input: R, output: W) -> Self {
        Self { input, output }
    }

    /// The answer to `question`, asked again until `read` takes it; an empty line is the `default`, if there is one.
    ///
    /// # Errors
    /// The terminal was closed, or no answer was one.
    pub(super) fn ask<T>(
        &mut self,
        question: &str,
        default: Option<&str>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Failure> {
        let shown = default.map(|default| format!(" [{default}]")).unwrap_or_default();
        for _ in 0..MAX_TIMES {
            let line = self.line(&format!("{question}{shown}: "))?;
            let given = if line.is_empty() { default.unwrap_or_default() } else { line.as_str() };
            match read(given) {
                Ok(answer) => return Ok(answer),
                Err(fault) => self.say(&fault)?,
            }
        }
        Err(Failure::new(
            "no answer could be used; give the answers as flags: `tollgate init --help` has them",
        ))
    }

    /// Adds answers to `question` until an empty line ends them; there is at least one.
    ///
    /// # Errors
    /// As of [`Self::ask`].
    pub(super) fn list(
        &mut self,
        question: &str,
        mut take: impl FnMut(&str) -> Result<(), String>,
    ) -> Result<(), Failure> {
        let (mut taken, mut faults) = (0_u32, 0);
        while faults < MAX_TIMES {
            let end = if taken == 0 { "" } else { ", or an empty line" };
            let line = self.line(&format!("{question}{end}: "))?;
            if line.is_empty() && taken > 0 {
                return Ok(());
            }
            match take(&line) {
                Ok(()) => taken += 1,
                Err(fault) => {
                    faults += 1;
                    self.say(&fault)?;
                }
            }
        }
        Err(Failure::new(
            "too many answers could not be used; give them as flags: `tollgate init --help` has them",
        ))
    }

    fn say(&mut self, text: &str) -> Result<(), Failure> {
        let said = writeln!(self.output, "  {}", super::super::text::plain(text));
        said.map_err(unheard)
    }

    /// One line, without the spaces around it.
    fn line(&mut self, prompt: &str) -> Result<String, Failure> {
        write!(self.output, "{prompt}").and_then(|()| self.output.flush()).map_err(unheard)?;
        let mut line = Vec::new();
        let read = self.input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        read.map_err(|error| Failure::new(format!("cannot read the answer: {error}")))?;
        if !line.ends_with(b"\n") {
            return Err(Failure::new(match line.len() as u64 {
                MAX_LINE.. => "the answer is too long",
                _ => "the terminal was closed before all was answered; nothing was written",
            }));
        }
        let line = String::from_utf8(line).map_err(|_| Failure::new("the answer is not UTF-8"))?;
        Ok(line.trim().to_owned())
    }
}

fn unheard(error: io::Error) -> Failure {
    Failure::new(format!("cannot ask: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Result<u32, String> {
        text.parse().map_err(|_| format!("`{text}` is no number"))
    }

    fn asked(answers: &str, default: Option<&str>) -> (Result<u32, String>, String) {
        let mut said = Vec::new();
        let mut terminal = Terminal::new(answers.as_bytes(), &mut said);
        let answer = terminal.ask("How many", default, number).map_err(|failure| failure.to_string());
        (answer, String::from_utf8(said).unwrap())
    }

    #[test]
    fn a_question_is_asked_until_its_answer_can_be_used() {
        assert_eq!(asked(" 7 \n", None), (Ok(7), "How many: ".to_owned()));
        assert_eq!(asked("\n", Some("3")), (Ok(3), "How many [3]: ".to_owned()));
        let (answer, said) = asked("many\n\n9\n", None);
        assert_eq!((answer, said.matches("How many: ").count()), (Ok(9), 3), "{said}");
        assert!(said.contains("  `many` is no number\n"), "{said}");
        let (answer, said) = asked(&"x\n".repeat(9), None);
        assert!(answer.unwrap_err().contains("as flags"), "{said}");
        assert_eq!(said.matches("How many").count(), 5);
    }

    #[test]
    fn what_ends_or_is_too_long_is_refused() {
        assert!(asked("", Some("3")).0.unwrap_err().contains("closed"));
        assert!(asked("7", None).0.unwrap_err().contains("closed"), "an answer ends with its line");
        assert!(asked(&"7".repeat(5_000), None).0.unwrap_err().contains("too long"));
    }

    #[test]
    fn a_list_has_at_least_one_answer() {
        let (mut said, mut taken) = (Vec::new(), Vec::new());
        let mut terminal = Terminal::new(&b"\n1\nx\n2\n\n3\n"[..], &mut said);
        terminal.list("One", |text| number(text).map(|number| taken.push(number))).unwrap();
        assert_eq!(taken, [1, 2]);
        let said = String::from_utf8(said).unwrap();
        assert_eq!(said.matches(", or an empty line: ").count(), 3, "{said}");
    }
}
