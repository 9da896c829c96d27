//! A storage in memory that separates what is written from what is durable.
