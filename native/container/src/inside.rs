//! The first process of an app, from the runtime's exec to the app's.

use casemate_ticket::app::App;
use casemate_ticket::config::Config;
use casemate_ticket::spec::Level;
use casemate_vmm::failure::{Failure, failure};
use casemate_wire::control::Reason;
use guest_init::mounts::{Outside, is_from_outside};
use guest_init::namespaces::Kinds;
use guest_init::report::Reporter;

use crate::bundle::{CONFIG, FILES, PASSED, PROGRAM, REPORT};
use crate::gather::{bytes_of, present};
use crate::{below, limits_unsafe};

/// Becomes the app. Whoever starts this by hand has no descriptors for it and is told so.
pub fn main(level: Level, place: &str) -> ! {
    let Err(failure) = prepare(level, place);
    eprintln!("casemate-container: {failure}");
    std::process::exit(1)
}

fn prepare(level: Level, place: &str) -> Result<std::convert::Infallible, Failure> {
    let broken = |text: std::fmt::Arguments<'_>| failure(Reason::LaunchDocument, text);
    let report = present(REPORT, "report")?;
    let config = bytes_of(&present(CONFIG, "configuration")?.into(), "configuration")?;
    let files = bytes_of(&present(FILES, "files")?.into(), "files")?;
    let report = Reporter::inherited(report).map_err(|error| broken(format_args!("{error}")))?;
    let config = Config::parse(&config).map_err(|error| broken(format_args!("{error}")))?;
    let app = place.parse().ok().and_then(|place: usize| config.apps.get(place)).cloned();
    let mut app = app.ok_or_else(|| broken(format_args!("there is no app")))?;
    adapt(&mut app);
    if level != Level::Host {
        below::forbid_namespaces()
            .map_err(|error| broken(format_args!("limits of namespaces: {error}")))?;
    }
    let outside = app.mounts.iter().filter(|mount| is_from_outside(&mount.kind));
    let first = PROGRAM.saturating_add(PASSED);
    let trees = outside.zip(first..).map(|(_, number)| present(number, "tree of a mount"));
    let trees = trees.collect::<Result<_, _>>()?;
    let outside = Outside { trees, files: &files };
    guest_init::child::run_in_container(&app, kinds(level), &config, outside, &report)
}

/// The namespaces of an app at a level.
#[must_use]
pub const fn kinds(level: Level) -> Kinds {
    if matches!(level, Level::Host) { Kinds::Host } else { Kinds::Container }
}

/// What a container has less than its configuration says: limits are the host's at most, and the runtime has set
/// `no_new_privs`, which nothing takes away.
pub fn adapt(app: &mut App) {
    limits_unsafe::within(&mut app.process.rlimits);
    app.process.no_new_privileges = true;
}
