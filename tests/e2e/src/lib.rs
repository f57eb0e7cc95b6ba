//! What the end-to-end tests share; the behaviours are in `tests/`, one per file.

pub mod authority;
pub mod changes;
pub mod clock;
pub mod container;
pub mod held;
pub mod hostile;
pub mod succession;
pub mod world;

use tramline_harness::run::{Which, clean, is_root};

/// Whether the test can run: `false`, loudly, without root. Removes what crashed runs left behind.
///
/// # Panics
/// `TRAMLINE_REQUIRE_ROOT` is set and this is not root, so that a run that must test cannot pass by skipping.
#[must_use]
#[expect(
    clippy::print_stderr,
    reason = "the reader of a skipped test must see that it was skipped"
)]
pub fn ready() -> bool {
    if !is_root() {
        assert!(
            std::env::var_os("TRAMLINE_REQUIRE_ROOT").is_none(),
            "end-to-end tests need root"
        );
        eprintln!("SKIPPED, NOTHING WAS TESTED: end-to-end tests need root");
        return false;
    }
    if let Err(error) = clean(Which::Crashed) {
        eprintln!("could not remove what a crashed run left behind: {error:#}");
    }
    true
}
