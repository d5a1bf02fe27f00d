//! The page about tools: each file that it shows can be used, and each command does what the page says.

use std::{collections::BTreeMap, fs};

use mandate_tests::{Scenario, run, workspace_folder};

use crate::docs::{Desk, blocks, unrun};

/// The files of the page by name. Parts of one file stand one after the other.
fn files(page: &str) -> BTreeMap<String, String> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for block in page.split("```toml\n# ").skip(1) {
        let (name, rest) = block.split_once('\n').unwrap();
        let text = rest.split("```").next().unwrap();
        let file = files.entry(name.to_owned()).or_default();
        file.push('\n');
        file.push_str(text);
    }
    files
}

#[test]
fn each_file_on_the_page_about_tools_can_be_used_and_its_commands_say_what_it_shows() {
    run(async {
        let page = fs::read_to_string(workspace_folder().join("docs/tools.md")).unwrap();
        assert_eq!(unrun(&page), Vec::<String>::new(), "commands that nobody runs: mark their blocks");
        assert_eq!(page.matches("```toml\n").count(), page.matches("```toml\n# ").count(), "each block names its file");
        let desk = Desk::new("tools-page").await;
        let example = Scenario::new("tools-page-example").await;
        desk.types(&format!("cp -r {} desk", example.path("").display())).await.ok();
        let files = files(&page);
        assert!(files.len() >= 5, "{files:#?}");
        for (name, text) in &files {
            let path = desk.path().join("desk").join(name);
            let before = fs::read_to_string(&path).unwrap_or_default();
            fs::write(path, before + text).unwrap();
        }
        let said = desk.types(&blocks("docs/tools.md").concat()).await.ok();
        for block in page.split("```text\n").skip(1) {
            for line in block.split("```").next().unwrap().lines() {
                assert!(said.contains(line), "`{line}` is not what was printed:\n{said}");
            }
        }
    });
}
