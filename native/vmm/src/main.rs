//! casemate-vmm

fn main() {}
