//! A file cut into its documents before any of them is parsed, so that a broken one costs only itself.
//!
//! A line that begins with `---` ends a document wherever it stands: YAML allows it inside no scalar (YAML 1.2.2,
//! section 9.1.2), and JSON has no such line.

/// One document's text and the line of the file, counted from 1, on which it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'t> {
    pub text: &'t str,
    pub first_line: u32,
}

pub fn documents(file: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut begin = (0, 1);
    // Directives (`%YAML 1.2`) and comments at the top belong to the marker below them.
    let mut only_preamble = true;
    let mut offset = 0;
    for (index, line) in file.split_inclusive('\n').enumerate() {
        let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        if is_marker(line) && !only_preamble {
            parts.push(Part { text: &file[begin.0..offset], first_line: begin.1 });
            begin = (offset, number);
        }
        let trimmed = line.trim_start_matches('\u{feff}').trim();
        only_preamble &= !is_marker(line) && (trimmed.is_empty() || trimmed.starts_with(['#', '%']));
        offset += line.len();
    }
    parts.push(Part { text: &file[begin.0..], first_line: begin.1 });
    parts
}

fn is_marker(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(file: &str) -> Vec<(&str, u32)> {
        documents(file).into_iter().map(|part| (part.text, part.first_line)).collect()
    }

    #[test]
    fn every_marker_line_begins_a_document() {
        assert_eq!(
            split("a: 1\n---\nb: 2\n--- # c\nc: 3"),
            [("a: 1\n", 1), ("---\nb: 2\n", 2), ("--- # c\nc: 3", 4)]
        );
        assert_eq!(split("---\r\na: 1\r\n---\r\n"), [("---\r\na: 1\r\n", 1), ("---\r\n", 3)]);
    }

    #[test]
    fn a_marker_is_a_whole_word_at_the_start_of_a_line() {
        for text in ["a: |\n  ---\n", "---a: 1\n", " ---\n", "a: b---\n"] {
            assert_eq!(split(text), [(text, 1)]);
        }
    }

    #[test]
    fn comments_and_directives_stay_with_the_document_below() {
        assert_eq!(split("# licence\n%YAML 1.2\n---\na: 1\n"), [("# licence\n%YAML 1.2\n---\na: 1\n", 1)]);
        assert_eq!(split("").len(), 1);
    }
}
