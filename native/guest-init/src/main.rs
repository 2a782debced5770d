//! guest-init

fn main() {}
