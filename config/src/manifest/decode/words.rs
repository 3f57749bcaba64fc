//! The words of messages: what was found, what is accepted, what may have been meant.

/// The nearest of the known names, if one is near enough to have been meant.
pub fn nearest<'k>(found: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let limit = (found.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|name| (distance(&found.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Whether two words differ by at most so many letters.
pub fn within(a: &str, b: &str, letters: usize) -> bool {
    a.len().abs_diff(b.len()) <= letters && distance(a, b) <= letters
}

/// Optimal string alignment: insertions, deletions, replacements, neighbours swapped.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// A text as it is shown in a message: quoted, control characters escaped, cut where it becomes unreadable.
pub fn quoted(text: &str) -> String {
    const SHOWN: usize = 80;
    if text.chars().count() <= SHOWN {
        return format!("{text:?}");
    }
    format!("{:?}…", text.chars().take(SHOWN).collect::<String>())
}

pub fn one_of(names: &[&str]) -> String {
    match names {
        [] => "accepted here".to_owned(),
        [name] => name.to_string(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}
