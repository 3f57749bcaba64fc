//! The manifests that pages of the documentation show are right.

use std::fs;

use outrigger_config::manifest::parse;

#[test]
fn what_pages_show_is_read_without_a_word() {
    let mut shown = 0;
    for page in fs::read_dir("../docs").unwrap() {
        let path = page.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for block in text.split("```yaml\n").skip(1) {
            let manifest = block.split("```").next().unwrap();
            let parsed = parse(manifest.as_bytes(), &path.display().to_string());
            let found: Vec<String> = parsed.diagnostics.iter().map(ToString::to_string).collect();
            assert_eq!(found, Vec::<String>::new(), "{manifest}");
            assert!(!parsed.objects.is_empty(), "{manifest}");
            shown += 1;
        }
    }
    assert!(shown >= 4, "only {shown} manifests were found");
}
