//! What the end-to-end tests share lies in the library, since other tests need it too.

use forebay_tests::gateway::Program;

pub(crate) use forebay_tests::world::{DRAIN_LIMIT, Load, Scratch, World};

/// The program under test.
pub(crate) fn program() -> Program {
    Program::of_this_build()
}
