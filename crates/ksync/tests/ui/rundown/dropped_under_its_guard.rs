// A user cannot outlive what counts it.
use ksync::mutex::CacheAwareRundown;

fn main() {
    let rundown = CacheAwareRundown::new().unwrap();
    let user = rundown.acquire().unwrap();
    drop(rundown);
    drop(user);
}
