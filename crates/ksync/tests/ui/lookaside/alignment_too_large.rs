// Entries are aligned to 16 bytes, and no more.
use ksync::lookaside::Lookaside;

#[repr(align(32))]
struct Wide(u8);

static LIST: Lookaside<Wide> = Lookaside::const_new();

fn main() {
    LIST.init().unwrap();
}
