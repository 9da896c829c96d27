//! Text for people: that of others, which on a terminal may say what it likes and command nothing, and numbers of things.

/// Text from a device, a server or a file in one line, without what a terminal obeys and without what turns the direction of
/// writing round.
#[must_use]
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if is_odd(c) { '\u{fffd}' } else { c }).collect()
}

/// The same of text that may have several lines.
#[must_use]
pub(crate) fn plain_lines(text: &str) -> String {
    text.chars().map(|c| if c != '\n' && is_odd(c) { '\u{fffd}' } else { c }).collect()
}

/// So many of a thing: `1 row`, `2 rows`.
#[must_use]
pub(crate) fn some(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn is_odd(c: char) -> bool {
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_thing_is_a_single_one() {
        assert_eq!([0, 1, 2].map(|number| some(number, "row")), ["0 rows", "1 row", "2 rows"]);
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\nä\u{9b}1m"), "a\u{fffd}[2Jb\u{fffd}ä\u{fffd}1m");
        assert_eq!(plain_lines("a\u{1b}[2J\nb\r"), "a\u{fffd}[2J\nb\u{fffd}");
        assert_eq!(plain("pump\u{202e}gpj.exe\u{2028}"), "pump\u{fffd}gpj.exe\u{fffd}");
    }
}
