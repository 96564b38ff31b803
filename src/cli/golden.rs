//! Is an output still what it was? Texts stand in `tests/golden/cli/`; with `SPILLWAY_UPDATE_GOLDEN=1` they are written.

/// Compares `text` with the golden text `name`.
#[track_caller]
pub(super) fn compare(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/cli/{name}.txt"));
    if std::env::var_os("SPILLWAY_UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, golden, "{}", path.display());
}
