//! The examples of the documents that this project starts from, as tests. Every change from a document's text is explained where it is made.

#[path = "seeds/seed_003_lookaside.rs"]
mod seed_003_lookaside;
