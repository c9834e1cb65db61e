use super::*;

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}

#[test]
fn every_example_is_valid() {
    let names = std::fs::read_dir(example("")).unwrap().map(|entry| entry.unwrap().path());
    let configs: Vec<_> = names.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    assert!(configs.len() >= 3, "{configs:?}");
    for path in configs {
        if let Err(errors) = Config::load(&path) {
            panic!("{errors}");
        }
    }
}
