//! What must hold for any text that somebody may write into a configuration. See `crate::fuzzing`.

use std::path::{Path, PathBuf};

use super::load;
use super::problem::Purpose;
use crate::fuzzing::Feed;

/// Two files: what is wrong with them is said, and there is always something to say of what is refused.
pub fn config(input: &[u8]) {
    let mut feed = Feed::new(input);
    let extra = feed.bytes();
    let main = feed.rest();
    // Secrets are read from the files that the text names; those of the system may have no end.
    let risky = |text: &[u8]| [b"/dev" as &[u8], b"/proc", b"\\"].iter().any(|name| contains(text, name));
    if risky(main) || risky(extra) {
        return;
    }
    let path = Path::new("/nowhere/forebay.toml");
    let files = [path.to_owned(), PathBuf::from("/nowhere/conf.d/extra.toml")];
    let texts = [main, extra].into_iter().map(|text| Ok(text.to_vec()));
    let variables = |name: &str| (name.len() < 6).then(|| name.to_lowercase());
    if let Err(error) = load::of_texts(path, files.into(), texts, &variables, Purpose::Everything) {
        assert!(!error.problems().is_empty());
        assert!(!error.to_string().is_empty());
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
