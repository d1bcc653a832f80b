//! Syncs of one process, counted and slowed: a library of a few lines stands before the C library's.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/system/service/syncs.c");

/// What processes share that are started with [`environment`](Self::environment).
pub struct Syncs {
    figures: File,
    library: PathBuf,
    path: PathBuf,
    _folder: TempDir,
}

impl Syncs {
    /// None without a C compiler.
    pub fn build() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let (library, path) = (folder.path().join("syncs.so"), folder.path().join("figures"));
        let mut compiler = Command::new("cc");
        let is_built = compiler.args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(SOURCE).status();
        if !is_built.is_ok_and(|status| status.success()) {
            return None;
        }
        let figures = File::options().create_new(true).read(true).write(true).open(&path).expect("a file");
        figures.set_len(16).expect("room for both figures");
        Some(Self { figures, library, path, _folder: folder })
    }

    pub fn environment(&self) -> [(&'static str, String); 2] {
        [("LD_PRELOAD", self.library.display().to_string()), ("BENCH_SYNCS", self.path.display().to_string())]
    }

    /// From now on each sync takes as long at least.
    pub fn slow_down(&self, us: u64) {
        self.figures.write_all_at(&us.to_ne_bytes(), 0).expect("written");
    }

    pub fn count(&self) -> u64 {
        let mut octets = [0; 8];
        self.figures.read_exact_at(&mut octets, 8).expect("both figures are there");
        u64::from_ne_bytes(octets)
    }
}
