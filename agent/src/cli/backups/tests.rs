//! Units of `backups.rs`.

use outrider_store::DirectoryStore;

use super::*;

/// An archive with a good backup, one without its WAL and one without `backup.info`.
async fn catalog(directory: &std::path::Path) -> Catalog {
    let info = |begin: &str, end: &str, segment: u32| {
        format!(
            "begin_time={begin}\nend_time={end}\nbegin_wal=0000000100000000{segment:08X}\nbegin_xlog=0/{segment}000028\n\
             end_wal=0000000100000000{segment:08X}\nend_xlog=0/{segment}000100\nstatus=DONE\ntimeline=1\nversion=150018\n"
        )
    };
    let put = |key: &str, content: &str| {
        let path = directory.join("s").join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    for (id, begin, segment) in
        [("20260101T100000", "2026-01-01 10:00", 2), ("20260102T100000", "2026-01-02 10:00", 9)]
    {
        put(&format!("base/{id}/data.tar.gz"), "0123456789");
        put(
            &format!("base/{id}/backup.info"),
            &info(&format!("{begin}:00+00:00"), &format!("{begin}:08+00:00"), segment),
        );
    }
    put("base/20260103T100000/data.tar.gz", "x");
    put("base/20260101T100000/annotations/keep", "full");
    for segment in [2, 3, 5] {
        put(&format!("wals/0000000100000000/0000000100000000{segment:08X}.gz"), "x");
    }
    Catalog::read(&DirectoryStore::new(directory), &Layout::new("s").unwrap()).await.unwrap()
}

#[tokio::test]
async fn the_list_shows_what_each_backup_is_good_for_and_what_can_be_recovered() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = catalog(directory.path()).await;
    let shown = show(&catalog, "2026-01-03T10:00:00Z".parse().unwrap(), Format::Table).unwrap();
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let lines: Vec<Vec<String>> = shown.lines().filter(|line| line.starts_with('|')).map(cells).collect();
    let of = |line: usize| {
        let cells = &lines[line];
        [0, 2, 3, 5, 6, 7, 8, 9].map(|column| cells[column].as_str())
    };
    assert_eq!(of(1), ["20260101T100000", "2d", "8s", "1", "0/2000028", "0/2000100", "full", "done"]);
    assert_eq!(of(2)[7], "incomplete (its WAL 000000010000000000000009 is missing)");
    assert_eq!(of(3), ["20260103T100000", "0s", "", "", "", "", "", "unfinished"]);
    assert!(shown.contains("(0/2000100) to (0/4000000) on timeline 1\n"), "{shown}");
    assert!(shown.contains("Missing WAL: 000000010000000000000004. "), "{shown}");
    let document: Value =
        serde_json::from_str(&show(&catalog, Timestamp::UNIX_EPOCH, Format::Json).unwrap()).unwrap();
    assert_eq!(document["backups"][0]["end_time"], "2026-01-01T10:00:08Z");
    assert_eq!(document["recovery_window"]["gaps"][0]["first"], "000000010000000000000004");
    assert_eq!(document["backups"][2]["state"], "unfinished");
}

#[tokio::test]
async fn a_dry_run_shows_what_goes_and_why() {
    let directory = tempfile::tempdir().unwrap();
    let catalog = catalog(directory.path()).await;
    let plan =
        retention::plan(&catalog, "2026-03-03T10:00:00Z".parse().unwrap(), &RetentionPolicy::default());
    let shown = show_plan(&catalog, &plan, Format::Table).unwrap();
    assert!(shown.contains("marked to be kept (full)"), "{shown}");
    assert!(shown.ends_with("Nothing was removed\n"), "{shown}");
}
