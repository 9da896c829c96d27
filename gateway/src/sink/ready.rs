//! The body of a batch's request, made while another request is on its way.
//!
//! It is made frame by frame, so that whoever makes it can look after other things between two of them. It is of use only
//! for the whole batch, in the dialect that it was made in: a part of it, as after a refusal, is encoded when it is sent.

use std::io;

use super::line_protocol::{Body, Dialect, Encoder};

/// How far the body of a batch is.
#[derive(Debug)]
pub(super) enum Ready {
    /// Its points of the first so many frames are in it.
    Growing(Box<Encoder>, usize),
    /// It holds all of them.
    Done(Dialect, Body),
}

impl Ready {
    /// Nothing comes behind the last frame.
    pub(super) fn finish(encoder: Encoder) -> io::Result<Ready> {
        Ok(Ready::Done(encoder.dialect(), encoder.finish()?))
    }

    pub(super) fn body(&self, wanted: Dialect) -> Option<&Body> {
        match self {
            Ready::Done(dialect, body) if *dialect == wanted => Some(body),
            _ => None,
        }
    }
}
