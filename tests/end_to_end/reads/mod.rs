//! Reading back: what is acked can be read at once, is read once, and asking for it keeps nobody from being acked.

mod export;
mod flood;
pub(crate) mod site;
mod windows;
mod your_writes;
