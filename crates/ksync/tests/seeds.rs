//! The examples of the documents that this project starts from, as tests. Every change from a document's text is explained where it is made.

#[path = "seeds/seed_000_001_ksync.rs"]
mod seed_000_001_ksync;
#[path = "seeds/seed_002_wdk_mutex.rs"]
mod seed_002_wdk_mutex;
#[path = "seeds/seed_003_lookaside.rs"]
mod seed_003_lookaside;
#[path = "seeds/seed_004_unload.rs"]
mod seed_004_unload;
#[path = "seeds/seed_004_wdm.rs"]
mod seed_004_wdm;
#[path = "seeds/seed_004_wdm_raw.rs"]
mod seed_004_wdm_raw;
