//! What the double does, one test per rule.
