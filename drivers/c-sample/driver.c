/*
 * A driver in C, with the headers that mingw-w64 has of the DDK and without anything of ksync: events, a timer, a DPC, threads and a
 * spin lock. It was not written for the hosted kernel.
 *
 * With SEEDED_BUG defined it has one: a read and a write of the counter, each under the lock, that belong into one critical section.
 */

#include <wdm.h>

/* The DDK's headers of mingw-w64 lack some of what the DDK has. */
#ifndef UNREFERENCED_PARAMETER
#define UNREFERENCED_PARAMETER(parameter) (void)(parameter)
#endif

#define WORKERS 3
#define ROUNDS 4
/* 100 ns units. */
#define MILLISECOND 10000LL

static struct {
    KSPIN_LOCK lock;
    ULONG counter;
    KEVENT start;
    KTIMER timer;
    KDPC dpc;
    KEVENT expired;
    ULONG expiries;
} sample;

DRIVER_INITIALIZE DriverEntry;
static DRIVER_UNLOAD Unload;

static VOID Count(VOID)
{
    KIRQL level;
#ifdef SEEDED_BUG
    ULONG seen;

    KeAcquireSpinLock(&sample.lock, &level);
    seen = sample.counter;
    KeReleaseSpinLock(&sample.lock, level);
    KeAcquireSpinLock(&sample.lock, &level);
    sample.counter = seen + 1;
    KeReleaseSpinLock(&sample.lock, level);
#else
    KeAcquireSpinLock(&sample.lock, &level);
    sample.counter++;
    KeReleaseSpinLock(&sample.lock, level);
#endif
}

static VOID NTAPI Worker(PVOID context)
{
    ULONG round;

    UNREFERENCED_PARAMETER(context);
    KeWaitForSingleObject(&sample.start, Executive, KernelMode, FALSE, NULL);
    for (round = 0; round < ROUNDS; round++)
        Count();
    PsTerminateSystemThread(STATUS_SUCCESS);
}

static NTSTATUS RunWorkers(VOID)
{
    PVOID threads[WORKERS];
    NTSTATUS status = STATUS_SUCCESS;
    ULONG started = 0;
    ULONG index;

    DbgPrint("[step] spin lock\n");
    for (index = 0; index < WORKERS; index++) {
        HANDLE handle;

        status = PsCreateSystemThread(&handle, THREAD_ALL_ACCESS, NULL, NULL, NULL, Worker, NULL);
        if (!NT_SUCCESS(status))
            break;
        status = ObReferenceObjectByHandle(handle, SYNCHRONIZE, NULL, KernelMode, &threads[index], NULL);
        ZwClose(handle);
        if (!NT_SUCCESS(status))
            break;
        started++;
    }
    KeSetEvent(&sample.start, IO_NO_INCREMENT, FALSE);
    if (started != 0)
        KeWaitForMultipleObjects(started, threads, WaitAll, Executive, KernelMode, FALSE, NULL, NULL);
    for (index = 0; index < started; index++)
        ObDereferenceObject(threads[index]);
    if (!NT_SUCCESS(status))
        return status;
    DbgPrint("%lu workers counted to %lu of %lu\n", (ULONG)WORKERS, sample.counter, (ULONG)(WORKERS * ROUNDS));
    if (sample.counter != WORKERS * ROUNDS)
        KeBugCheckEx(0xE2, sample.counter, WORKERS * ROUNDS, 0, 0);
    return STATUS_SUCCESS;
}

static VOID NTAPI Expired(PKDPC dpc, PVOID context, PVOID argument1, PVOID argument2)
{
    UNREFERENCED_PARAMETER(dpc);
    UNREFERENCED_PARAMETER(context);
    UNREFERENCED_PARAMETER(argument1);
    UNREFERENCED_PARAMETER(argument2);
    InterlockedIncrement((LONG *)&sample.expiries);
    KeSetEvent(&sample.expired, IO_NO_INCREMENT, FALSE);
}

static NTSTATUS RunTimer(VOID)
{
    LARGE_INTEGER due;
    LARGE_INTEGER limit;
    NTSTATUS status;

    DbgPrint("[step] timer\n");
    due.QuadPart = -20 * MILLISECOND;
    limit.QuadPart = -5000 * MILLISECOND;
    DbgPrint("it was set: %d\n", (int)KeSetTimer(&sample.timer, due, &sample.dpc));
    status = KeWaitForSingleObject(&sample.expired, Executive, KernelMode, FALSE, &limit);
    DbgPrint("its DPC ran %lu time, the wait ended with %#lx\n", sample.expiries, (ULONG)status);
    /* 0 once it has expired, on NT; Wine 8 says 1. */
    DbgPrint("# it is still set: %d\n", (int)KeCancelTimer(&sample.timer));
    return status;
}

static NTSTATUS RunLevels(VOID)
{
    KIRQL level;

    DbgPrint("[step] strings\n");
    DbgPrint("%s, %c, %5d|%-5d|%05d, %x, %I64x\n", "text", 'c', 42, 42, 42, 0xabcdefU, 0x123456789abcdefULL);
    KeRaiseIrql(DISPATCH_LEVEL, &level);
    DbgPrint("# the level is %d, and was %d\n", (int)KeGetCurrentIrql(), (int)level);
    KeLowerIrql(level);
    return STATUS_SUCCESS;
}

/* A table of addresses, so that the image has something to relocate. */
static NTSTATUS (*const steps[])(VOID) = { RunWorkers, RunTimer, RunLevels };

static VOID NTAPI Unload(PDRIVER_OBJECT driver)
{
    UNREFERENCED_PARAMETER(driver);
    KeCancelTimer(&sample.timer);
    DbgPrint("[step] unload\n");
    DbgPrint("the sample is gone\n");
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING path)
{
    NTSTATUS status = STATUS_SUCCESS;
    ULONG step;

    UNREFERENCED_PARAMETER(path);
    driver->DriverUnload = Unload;
    KeInitializeSpinLock(&sample.lock);
    KeInitializeEvent(&sample.start, NotificationEvent, FALSE);
    KeInitializeEvent(&sample.expired, SynchronizationEvent, FALSE);
    KeInitializeTimer(&sample.timer);
    KeInitializeDpc(&sample.dpc, Expired, NULL);
    for (step = 0; step < sizeof(steps) / sizeof(steps[0]) && NT_SUCCESS(status); step++)
        status = ((NTSTATUS(*const volatile *)(VOID))steps)[step]();
    return status;
}
