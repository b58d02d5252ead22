//! Which walls stand between a candidate and the machine, for people and for `isolation`.

/// The walls around a candidate that are in force on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    /// In force, with a few words each.
    pub present: Vec<String>,
    /// Not in force, with the reason.
    pub missing: Vec<String>,
    /// Not in force either, with the reason: second walls, which those in force do without.
    pub reduced: Vec<String>,
    /// Whether the system call filters are: without them a candidate could start processes and kill others.
    pub(super) filtered: bool,
}

impl std::fmt::Display for Layers {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}", self.present.join("; "))?;
        if !self.missing.is_empty() {
            write!(f, "; not in force: {}", self.missing.join("; "))?;
        }
        if !self.reduced.is_empty() {
            write!(f, "; done without: {}", self.reduced.join("; "))?;
        }
        Ok(())
    }
}

impl Layers {
    pub(super) fn add_wall(&mut self, name: &str, is_second: bool, result: Result<String, String>) {
        if is_second { self.add_behind(name, result) } else { self.add(name, result) }
    }

    pub(super) fn add(&mut self, name: &str, result: Result<String, String>) {
        match result {
            Ok(detail) => self.present.push(format!("{name}: {detail}")),
            Err(reason) => self.missing.push(format!("{name}: {reason}")),
        }
    }

    /// A second wall that was in force has failed; whether that is news.
    pub(super) fn lose(&mut self, name: &str, reason: &str) -> bool {
        let before = self.present.len();
        self.present.retain(|line| !line.starts_with(&format!("{name}:")));
        let is_news = self.present.len() < before;
        if is_news {
            self.add_behind(name, Err(reason.to_owned()));
        }
        is_news
    }

    /// A second wall.
    pub(super) fn add_behind(&mut self, name: &str, result: Result<String, String>) {
        match result {
            Ok(detail) => self.present.push(format!("{name}: {detail}")),
            Err(reason) => self.reduced.push(format!("{name}: {reason}")),
        }
    }
}
