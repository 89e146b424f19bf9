//! As much of a shell as the documents use: quotes, comments, pipes, redirections and assignments.

/// One command, as it would reach the program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Command {
    /// `NAME=VALUE` before the program.
    pub(crate) variables: Vec<(String, String)>,
    /// The program and its arguments.
    pub(crate) words: Vec<String>,
    /// `< FILE`.
    pub(crate) input: Option<String>,
    /// `> FILE`.
    pub(crate) output: Option<String>,
}

impl Command {
    /// The program without its directory; empty where there is none.
    pub(crate) fn program(&self) -> &str {
        self.words.first().map_or("", |word| word.rsplit('/').next().unwrap_or_default())
    }

    /// The arguments of `tollgate`, however it is called; `None` where it is not.
    pub(crate) fn of_tollgate(&self) -> Option<&[String]> {
        match self.program() {
            "tollgate" => Some(&self.words[1..]),
            "cargo" if self.words.get(1).is_some_and(|word| word == "run") => {
                let separator = self.words.iter().position(|word| word == "--")?;
                (!self.words.iter().any(|word| word == "--example")).then(|| &self.words[separator + 1..])
            }
            _ => None,
        }
    }

    /// Its words as one line.
    pub(crate) fn line(&self) -> String {
        self.words.join(" ")
    }
}

/// The commands of a block. Each stage of a pipe, and the body of a loop, is a command by itself.
pub(crate) fn commands(block: &str) -> Vec<Command> {
    let mut reader = Reader::default();
    let mut letters = block.chars().peekable();
    while let Some(letter) = letters.next() {
        match (reader.quote, letter) {
            (Some(quote), letter) if letter == quote => reader.quote = None,
            (Some('"'), '\\') => reader.extend(letters.next()),
            (Some(_), letter) => reader.extend(Some(letter)),
            (None, '\'' | '"') => {
                reader.quote = Some(letter);
                reader.word.get_or_insert_default();
            }
            (None, '\\') => match letters.next() {
                Some('\n') => reader.end_word(),
                next => reader.extend(next),
            },
            (None, '#') if reader.word.is_none() => while letters.next_if(|c| *c != '\n').is_some() {},
            (None, '\n' | ';' | '|') => reader.end_command(),
            (None, '<' | '>') if reader.word.is_none() => reader.redirection = Some(letter),
            (None, letter) if letter.is_whitespace() => reader.end_word(),
            (None, letter) => reader.extend(Some(letter)),
        }
    }
    assert!(reader.quote.is_none(), "a quotation is not closed: {block}");
    reader.end_command();
    reader.commands
}

#[derive(Default)]
struct Reader {
    commands: Vec<Command>,
    command: Command,
    word: Option<String>,
    quote: Option<char>,
    redirection: Option<char>,
}

impl Reader {
    fn extend(&mut self, letter: Option<char>) {
        self.word.get_or_insert_default().extend(letter);
    }

    fn end_word(&mut self) {
        let Some(word) = self.word.take() else { return };
        let is_name =
            |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        match (self.redirection.take(), word.split_once('=')) {
            (Some('<'), _) => self.command.input = Some(word),
            (Some(_), _) => self.command.output = Some(word),
            (None, Some((name, value))) if self.command.words.is_empty() && is_name(name) => {
                self.command.variables.push((name.to_owned(), value.to_owned()));
            }
            // The body of a loop.
            (None, _) if self.command.words.is_empty() && word == "do" => {}
            (None, _) => self.command.words.push(word),
        }
    }

    fn end_command(&mut self) {
        self.end_word();
        let command = std::mem::take(&mut self.command);
        if !command.words.is_empty() {
            self.commands.push(command);
        }
    }
}

#[test]
fn a_block_is_read_as_a_shell_reads_it() {
    let block = "A=1 tollgate keys hash --label 'a b' < in.txt > out.txt  # a comment\n\
                 for i in 1 2; do\n  grpcurl -d '{\n \"x\": 1 }' h m\ndone\n\
                 cargo run --release -- spend \\\n  --json | jq .a\n";
    let commands = commands(block);
    let programs: Vec<_> = commands.iter().map(Command::program).collect();
    assert_eq!(programs, ["tollgate", "for", "grpcurl", "done", "cargo", "jq"]);
    assert_eq!(commands[0].variables, [("A".to_owned(), "1".to_owned())]);
    assert_eq!(commands[0].words[1..], ["keys", "hash", "--label", "a b"]);
    assert_eq!(
        (commands[0].input.as_deref(), commands[0].output.as_deref()),
        (Some("in.txt"), Some("out.txt"))
    );
    assert_eq!(commands[2].words[2], "{\n \"x\": 1 }");
    assert_eq!(commands[4].of_tollgate().unwrap(), ["spend", "--json"]);
}
