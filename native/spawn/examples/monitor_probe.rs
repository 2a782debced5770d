//! Stands in for the monitor of containers, and for the OCI runtime, in tests of what starts them. It runs nothing.

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("--digests") => println!(r#"{{"bundle":"sha256:{}"}}"#, "b".repeat(64)),
        Some("--version") => println!("runc version 0 (a probe)"),
        _ => loop {
            std::thread::park();
        },
    }
}
