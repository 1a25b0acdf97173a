// What is named as the entry is named in safe code.
use ksync::driver::{DriverObject, UnicodeStr};
use ksync::error::Result;

type Entry = fn(&DriverObject, &UnicodeStr<'_>) -> Result<()>;

static mut ENTRY: Entry = |_, _| Ok(());

ksync::driver_entry!(ENTRY);

fn main() {}
