/* One pair of calls on a spin lock, in C. */
#include <ddk/wdm.h>

struct count {
    KSPIN_LOCK lock;
    ULONG value;
};

void spin_pair_c(struct count *count)
{
    KIRQL old;

    KeAcquireSpinLock(&count->lock, &old);
    count->value += 1;
    KeReleaseSpinLock(&count->lock, old);
}
