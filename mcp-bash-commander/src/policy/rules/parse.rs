//! Reads a script as bash does and finds every simple command in it, whatever it stands in.

use super::cursor::{Budget, Cursor, Unread};
use super::expand::Place;
use super::word::Word;

/// Most simple commands of one script.
const MAX_COMMANDS: usize = 20_000;

/// Words that end a part of a compound command, and so begin no command.
const CLOSING: [&str; 8] = ["then", "elif", "else", "fi", "do", "done", "esac", "}"];

/// Adds the words of every simple command of `script` to `commands`, those before an error too.
///
/// # Errors
/// A script that is no script, or that shells read differently.
pub(super) fn find_commands(
    script: &str,
    budget: &mut Budget,
    commands: &mut Vec<Vec<Word>>,
) -> Result<(), Unread> {
    Cursor::new(script, budget, commands)?.script()
}

impl Cursor<'_> {
    /// Takes the whole script.
    pub(super) fn script(&mut self) -> Result<(), Unread> {
        self.list(&[""])?;
        Ok(())
    }

    /// Takes commands up to one of the words or operators of `until`, and that too; `""` is the end of the script.
    pub(super) fn list(&mut self, until: &[&'static str]) -> Result<&'static str, Unread> {
        self.budget.enter()?;
        // Behind `&&` and `|` a command must follow.
        let mut open = false;
        let end = loop {
            self.skip_blanks()?;
            let Some(next) = self.peek() else {
                if open || !until.contains(&"") {
                    return Err(Unread::Syntax("it ends inside a command"));
                }
                if !self.pending.is_empty() {
                    return Err(Unread::Syntax("a here-document without its text"));
                }
                break "";
            };
            if next == '\n' {
                self.line_end()?;
                continue;
            }
            if let Some(end) = self.list_end(until)? {
                if open {
                    return Err(Unread::Syntax("an operator without a command behind it"));
                }
                break end;
            }
            self.command()?;
            open = self.operator()?;
        };
        self.budget.leave();
        Ok(end)
    }

    /// Takes what ends a list, if it comes next.
    fn list_end(&mut self, until: &[&'static str]) -> Result<Option<&'static str>, Unread> {
        for end in [")", ";;&", ";;", ";&"] {
            if self.sees(end) {
                if !until.contains(&end) {
                    return Err(Unread::Syntax("an operator where a command should be"));
                }
                self.takes(end)?;
                return Ok(Some(end));
            }
        }
        let word = self.plain_word();
        if let Some(end) = until.iter().find(|end| !end.is_empty() && **end == word) {
            self.takes(end)?;
            return Ok(Some(end));
        }
        if CLOSING.contains(&word.as_str()) {
            return Err(Unread::Syntax("a reserved word where a command should be"));
        }
        Ok(None)
    }

    /// Takes the operator behind a command, if there is one; says whether a command must follow.
    fn operator(&mut self) -> Result<bool, Unread> {
        self.skip_blanks()?;
        if self.sees(";;") || self.sees(";&") {
            return Ok(false);
        }
        for (operator, open) in [
            ("&&", true),
            ("||", true),
            ("|&", true),
            ("|", true),
            (";", false),
            ("&", false),
        ] {
            if self.takes(operator)? {
                return Ok(open);
            }
        }
        match self.peek() {
            None | Some('\n' | ')') => Ok(false),
            Some(_) => Err(Unread::Syntax("an operator is missing between commands")),
        }
    }

    /// Takes one command, simple or not, with its redirections.
    fn command(&mut self) -> Result<(), Unread> {
        self.budget.enter()?;
        let prefixed = self.skip_prefixes()?;
        if prefixed && matches!(self.peek(), None | Some('\n' | ';' | ')')) {
            // Bash takes them alone, too.
        } else if self.compound()? {
            loop {
                self.skip_blanks()?;
                if !self.redirection()? {
                    break;
                }
            }
        } else {
            self.simple()?;
        }
        self.budget.leave();
        Ok(())
    }

    /// Takes `!`, `time` and `coproc` in front of a command. Says whether the last one can also stand without one.
    fn skip_prefixes(&mut self) -> Result<bool, Unread> {
        let mut prefixed = false;
        loop {
            let word = self.plain_word();
            match word.as_str() {
                "!" if self.sees("!(") => {
                    return Err(Unread::Ambiguous("`!(` without a blank"));
                }
                "!" => {
                    self.takes("!")?;
                    prefixed = true;
                }
                "time" => {
                    prefixed = true;
                    self.takes("time")?;
                    self.skip_blanks()?;
                    while matches!(self.plain_word().as_str(), "-p" | "--") {
                        self.word(Place::Argument)?;
                        self.skip_blanks()?;
                    }
                }
                "coproc" => {
                    self.takes("coproc")?;
                    self.skip_blanks()?;
                    self.skip_coproc_name()?;
                    prefixed = false;
                }
                _ => return Ok(prefixed),
            }
            self.skip_blanks()?;
        }
    }

    /// A coprocess has a name only where a compound command follows.
    fn skip_coproc_name(&mut self) -> Result<(), Unread> {
        let from = self.at;
        let name = self.plain_word();
        if name.is_empty() || self.begins_compound() {
            return Ok(());
        }
        self.takes(&name)?;
        self.skip_blanks()?;
        if !self.begins_compound() {
            self.at = from;
        }
        Ok(())
    }

    fn begins_compound(&mut self) -> bool {
        self.peek() == Some('(')
            || matches!(
                self.plain_word().as_str(),
                "{" | "[[" | "if" | "while" | "until" | "for" | "select" | "case"
            )
    }

    /// Takes a compound command or a function, if one begins here.
    fn compound(&mut self) -> Result<bool, Unread> {
        if self.peek() == Some('(') {
            self.next()?;
            if self.peek() != Some('(') || !self.arithmetic()? {
                self.list(&[")"])?;
            }
            return Ok(true);
        }
        let word = self.plain_word();
        match word.as_str() {
            "{" => {
                self.takes("{")?;
                self.list(&["}"])?;
            }
            "[[" => {
                self.takes("[[")?;
                self.test()?;
            }
            "if" => {
                self.takes("if")?;
                self.conditional()?;
            }
            "while" | "until" => {
                self.takes(&word)?;
                self.list(&["do"])?;
                self.list(&["done"])?;
            }
            "for" | "select" => {
                self.takes(&word)?;
                self.for_loop()?;
            }
            "case" => {
                self.takes("case")?;
                self.case()?;
            }
            "function" => {
                self.takes("function")?;
                self.skip_blanks()?;
                self.required_word()?;
                self.skip_blanks()?;
                if self.takes("(")? {
                    self.skip_blanks()?;
                    if !self.takes(")")? {
                        return Err(Unread::Syntax("a function without `)`"));
                    }
                }
                self.function_body()?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Takes what follows `if`.
    fn conditional(&mut self) -> Result<(), Unread> {
        loop {
            self.list(&["then"])?;
            match self.list(&["elif", "else", "fi"])? {
                "elif" => {}
                "else" => {
                    self.list(&["fi"])?;
                    return Ok(());
                }
                _ => return Ok(()),
            }
        }
    }

    fn function_body(&mut self) -> Result<(), Unread> {
        self.skip_lines()?;
        if !self.begins_compound() {
            return Err(Unread::Syntax("a function without a body"));
        }
        self.command()
    }

    /// Takes the `…]]` of a test; what matters of it are its substitutions.
    fn test(&mut self) -> Result<(), Unread> {
        loop {
            match self.peek() {
                Some(' ' | '\t') => {
                    self.next()?;
                }
                Some('\n') => self.line_end()?,
                Some('#') => return Err(Unread::Ambiguous("`#` inside [[ ]]")),
                Some(';') | None => return Err(Unread::Syntax("[[ is not closed")),
                Some(_) if self.plain_word() == "]]" => {
                    self.takes("]]")?;
                    return Ok(());
                }
                Some(_) => {
                    self.word(Place::Test)?;
                }
            }
        }
    }

    fn for_loop(&mut self) -> Result<(), Unread> {
        self.skip_blanks()?;
        if self.sees("((") {
            self.next()?;
            if !self.arithmetic()? {
                return Err(Unread::Syntax("`for ((` is not closed"));
            }
        } else {
            let name = self.required_word()?;
            if name.known().is_none() || name.quoted {
                return Err(Unread::Syntax("`for` without a variable"));
            }
            self.skip_lines()?;
            if self.plain_word() == "in" {
                self.takes("in")?;
                loop {
                    self.skip_blanks()?;
                    if self.word(Place::Argument)?.is_empty() {
                        break;
                    }
                }
            }
        }
        self.skip_blanks()?;
        if !self.sees(";;") {
            self.takes(";")?;
        }
        self.skip_lines()?;
        match self.plain_word().as_str() {
            "do" => {
                self.takes("do")?;
                self.list(&["done"])?;
            }
            "{" => {
                self.takes("{")?;
                self.list(&["}"])?;
            }
            _ => return Err(Unread::Syntax("a loop without `do`")),
        }
        Ok(())
    }

    fn case(&mut self) -> Result<(), Unread> {
        self.skip_blanks()?;
        self.required_word()?;
        self.skip_lines()?;
        if self.plain_word() != "in" {
            return Err(Unread::Syntax("`case` without `in`"));
        }
        self.takes("in")?;
        loop {
            self.skip_lines()?;
            if self.plain_word() == "esac" {
                self.takes("esac")?;
                return Ok(());
            }
            self.takes("(")?;
            loop {
                self.skip_blanks()?;
                self.required_word()?;
                self.skip_blanks()?;
                if !self.takes("|")? {
                    break;
                }
            }
            if !self.takes(")")? {
                return Err(Unread::Syntax("a case without `)`"));
            }
            if self.list(&[";;", ";&", ";;&", "esac"])? == "esac" {
                return Ok(());
            }
        }
    }

    /// Takes a simple command, or the definition of a function by its name.
    fn simple(&mut self) -> Result<(), Unread> {
        let mut words: Vec<Word> = Vec::new();
        let mut anything = false;
        loop {
            self.skip_blanks()?;
            if self.redirection()? {
                anything = true;
                continue;
            }
            let place = if words.is_empty() {
                Place::Command
            } else {
                Place::Argument
            };
            let word = self.word(place)?;
            if word.is_empty() {
                break;
            }
            anything = true;
            if words.is_empty() && word.assigns {
                continue;
            }
            words.push(word);
        }
        if self.peek() == Some('(') {
            self.next()?;
            self.skip_blanks()?;
            if words.len() != 1 || !self.takes(")")? {
                return Err(Unread::Syntax("a parenthesis inside a command"));
            }
            return self.function_body();
        }
        if !anything {
            return Err(Unread::Syntax("an operator where a command should be"));
        }
        if !words.is_empty() {
            if self.commands.len() >= MAX_COMMANDS {
                return Err(Unread::TooMuch);
            }
            self.commands.push(words);
        }
        Ok(())
    }

    /// Takes the `2` or `{name}` in front of a redirection.
    fn descriptor(&mut self) -> Result<(), Unread> {
        let from = self.at;
        let named = self.peek() == Some('{');
        let mut length = 0_usize;
        while let Some(next) = self.peek() {
            let part = if named {
                next.is_ascii_alphanumeric() || matches!(next, '{' | '}' | '_')
            } else {
                next.is_ascii_digit()
            };
            if !part {
                break;
            }
            self.next()?;
            length += 1;
        }
        if length == 0 || !matches!(self.peek(), Some('<' | '>')) {
            self.at = from;
        } else if !named && length > 9 {
            return Err(Unread::Ambiguous("the number of a descriptor is too large"));
        }
        Ok(())
    }

    /// Takes a redirection, if one begins here.
    fn redirection(&mut self) -> Result<bool, Unread> {
        if matches!(self.peek(), Some('{' | '0'..='9')) {
            self.descriptor()?;
        }
        if self.sees("<(") || self.sees(">(") {
            return Ok(false);
        }
        for operator in [
            "<<<", "<<-", "<<", "<>", "<&", "<", ">>", ">&", ">|", ">", "&>>", "&>",
        ] {
            if !self.takes(operator)? {
                continue;
            }
            match operator {
                "<<" => self.here_document(false)?,
                "<<-" => self.here_document(true)?,
                _ => {
                    self.skip_blanks()?;
                    self.required_word()?;
                }
            }
            return Ok(true);
        }
        Ok(false)
    }

    fn required_word(&mut self) -> Result<Word, Unread> {
        let word = self.word(Place::Argument)?;
        if word.is_empty() {
            return Err(Unread::Syntax("a word is missing"));
        }
        Ok(word)
    }

    /// Takes blanks, comments and line ends.
    fn skip_lines(&mut self) -> Result<(), Unread> {
        loop {
            self.skip_blanks()?;
            if self.peek() != Some('\n') {
                return Ok(());
            }
            self.line_end()?;
        }
    }
}
