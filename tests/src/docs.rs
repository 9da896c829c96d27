//! What the pages of the documentation show between fences, and what stands there about running it.
//!
//! A block is run by a test, or carries a mark with the reason in the line before it: `<!-- not run: REASON -->`. Code that
//! is only indented would be run by nobody, and is a fault.

use std::path::Path;

use anyhow::Context as _;

const MARK: &str = "<!-- not run: ";

/// Directories that hold nothing of ours.
const FOREIGN: [&str; 3] = ["target", "node_modules", "fixtures"];

/// What stands between two fences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The line of the page that opens it, from 1.
    pub line: usize,
    /// What it is: `sh`, `toml`, `text`, …
    pub kind: String,
    /// Its lines, without the indentation of the fence.
    pub text: String,
    /// Why no test runs it, if none does.
    pub not_run: Option<String>,
}

impl Block {
    /// The commands of a block of a shell, each with what continues it. Other blocks have none.
    #[must_use]
    pub fn commands(&self) -> Vec<String> {
        let joined = self.text.replace("\\\n", " ");
        let is_command = |line: &&str| !line.is_empty() && !line.starts_with('#');
        let lines = joined.lines().map(str::trim).filter(is_command).map(str::to_owned);
        if self.kind == "sh" { lines.collect() } else { Vec::new() }
    }
}

/// All pages below `root`, by their path from there, in order.
///
/// # Errors
/// A directory cannot be read.
pub fn pages(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut pages = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if entry.file_type()?.is_dir() {
                if !name.starts_with('.') && !FOREIGN.contains(&name.as_str()) {
                    directories.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path.strip_prefix(root)?.display().to_string());
            }
        }
    }
    pages.sort();
    Ok(pages)
}

/// The blocks of a page, in order.
///
/// # Errors
/// Code that is not fenced, a fence that is not closed or does not say what is in it, or a mark before something else.
pub fn blocks(page: &str) -> anyhow::Result<Vec<Block>> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open: Option<(usize, Block)> = None;
    let (mut mark, mut before) = (None, "");
    for (at, line) in page.lines().enumerate() {
        let (number, trimmed) = (at + 1, line.trim_start());
        let indent = line.len() - trimmed.len();
        match (&mut open, trimmed.strip_prefix("```")) {
            (Some(_), Some("")) => blocks.extend(open.take().map(|(_, block)| block)),
            (Some((indent, block)), _) => {
                block.text.push_str(line.get(*indent..).unwrap_or_default());
                block.text.push('\n');
            }
            (None, Some(kind)) => {
                anyhow::ensure!(!kind.is_empty(), "line {number}: the fence does not say what is in it");
                let block =
                    Block { line: number, kind: kind.to_owned(), text: String::new(), not_run: mark.take() };
                open = Some((indent, block));
            }
            (None, None) => {
                anyhow::ensure!(mark.is_none(), "line {at}: the mark has no block behind it");
                let is_code = before.is_empty() && indent >= 4;
                anyhow::ensure!(!is_code, "line {number}: code that is only indented; put fences around it");
                if let Some(reason) = trimmed.strip_prefix(MARK) {
                    let reason = reason.strip_suffix(" -->").filter(|reason| !reason.is_empty());
                    let reason = reason.with_context(|| format!("line {number}: the mark has no reason"))?;
                    mark = Some(reason.to_owned());
                }
            }
        }
        before = line;
    }
    anyhow::ensure!(open.is_none() && mark.is_none(), "the last block has no end");
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_marks_and_commands_are_told_apart() {
        let page = "# Page\n\n```sh\na b # c\n\n# nothing\nd \\\n  e\n```\n* In a list\n\n  <!-- not run: no Pi -->\n  ```ini\n  x\n    y\n  ```\n";
        let found = blocks(page).unwrap();
        let kinds: Vec<_> = found.iter().map(|block| (block.line, block.kind.as_str())).collect();
        assert_eq!(kinds, [(3, "sh"), (13, "ini")]);
        assert_eq!(found[0].commands(), ["a b # c", "d    e"]);
        assert_eq!((found[0].not_run.as_deref(), found[1].not_run.as_deref()), (None, Some("no Pi")));
        assert_eq!((found[1].text.as_str(), found[1].commands()), ("x\n  y\n", Vec::new()));
    }

    #[test]
    fn what_nobody_would_run_is_a_fault() {
        for (page, expected) in [
            ("a\n\n    forebay run\n", "line 3: code that is only indented; put fences around it"),
            ("```\nx\n```\n", "line 1: the fence does not say what is in it"),
            ("```sh\nx\n", "the last block has no end"),
            ("<!-- not run: no Pi -->\ntext\n", "line 1: the mark has no block behind it"),
            ("<!-- not run:  -->\n```sh\n```\n", "line 1: the mark has no reason"),
        ] {
            assert_eq!(blocks(page).unwrap_err().to_string(), expected, "{page}");
        }
    }
}
