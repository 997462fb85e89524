//! Subjects and patterns.
