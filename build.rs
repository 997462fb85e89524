//! Records the Rust toolchain that built the server, which `INFO` and monitoring show where nats-server shows Go's, and
//! compresses the dashboard, which is committed as it was built from `src/monitor/dashboard/` (`make dashboard`).

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;

const DASHBOARD: &str = "src/monitor/dashboard/dist/index.html";

fn main() {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = Command::new(rustc)
        .arg("--version")
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .and_then(|text| text.split_whitespace().nth(1).map(str::to_owned))
        .unwrap_or_else(|| "unknown".into());
    println!("cargo:rustc-env=RINGMAIN_RUSTC=rust{version}");
    println!("cargo:rerun-if-changed=build.rs");

    let page = fs::read(DASHBOARD).expect("the dashboard is part of the sources");
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&page).expect("memory takes everything");
    let compressed = encoder.finish().expect("memory takes everything");
    let directory = std::env::var_os("OUT_DIR").expect("cargo sets it");
    fs::write(Path::new(&directory).join("dashboard.html.gz"), compressed).expect("a folder for this build");
    println!("cargo:rerun-if-changed={DASHBOARD}");
}
