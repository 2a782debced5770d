//! casemate-spawn

fn main() {}
