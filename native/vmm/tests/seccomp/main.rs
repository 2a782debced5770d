//! The filters of the VMM's threads against the kernel itself: `filter_probe` makes each call in a child of its own under
//! the filter as it is compiled, and the child is killed or is not.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests stop at the first surprise"
)]

mod conditions;
mod edges;
mod probe;
mod table;
