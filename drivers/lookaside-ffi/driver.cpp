/*
 * A driver in C++ over a Rust static library: contexts that live in a lookaside list, which C++ stores as opaque pointers.
 */

/* mingw-w64 defines these two in both of its headers, which only C lets pass: those of the DDK get other names. */
#include <ntdef.h>
#include <intrin.h>
#define InterlockedBitTestAndSet DdkInterlockedBitTestAndSet
#define InterlockedBitTestAndReset DdkInterlockedBitTestAndReset
extern "C" {
#include <wdm.h>
}
#undef InterlockedBitTestAndSet
#undef InterlockedBitTestAndReset

#include "lookaside_ffi.h"

/* In the pool the last character comes first: "ksla". */
static const ULONG LOOKASIDE_TAG = 'alsk';

static const ULONG CONTEXTS = 4;

/* A context, removed at the end of its scope. */
class OwnedContext {
public:
    explicit OwnedContext(ULONG64 number)
    {
        status_ = create_context(number, &context_);
    }

    ~OwnedContext()
    {
        remove_context(context_);
    }

    OwnedContext(const OwnedContext &) = delete;
    OwnedContext &operator=(const OwnedContext &) = delete;

    NTSTATUS status() const { return status_; }
    ULONG64 number() const { return context_number(context_); }

private:
    Context *context_ = nullptr;
    NTSTATUS status_;
};

static NTSTATUS UseContexts();
static NTSTATUS UseOwnedContext();

/* A table of addresses, so that the image has something to relocate. */
static NTSTATUS (*const steps[])() = { UseContexts, UseOwnedContext };

static NTSTATUS UseContexts()
{
    Context *contexts[CONTEXTS] = {};
    NTSTATUS status = STATUS_SUCCESS;
    ULONG made;

    DbgPrint("[step] contexts\n");
    for (made = 0; made < CONTEXTS; made++) {
        status = create_context(made * 11, &contexts[made]);
        if (!NT_SUCCESS(status))
            break;
    }
    for (ULONG index = 0; index < made; index++)
        DbgPrint("context %lu has number %I64u\n", index, context_number(contexts[index]));
    /* The list cannot be deleted while contexts are out. */
    DbgPrint("freed too early: %s\n", NT_SUCCESS(free_lookaside()) ? "yes" : "refused");
    const ULONG order[CONTEXTS] = { 0, 2, 3, 1 };
    for (ULONG index : order)
        remove_context(contexts[index]);
    return status;
}

static NTSTATUS UseOwnedContext()
{
    DbgPrint("[step] owned context\n");
    OwnedContext owned(99);
    if (!NT_SUCCESS(owned.status()))
        return owned.status();
    DbgPrint("its number is %I64u\n", owned.number());
    return STATUS_SUCCESS;
}

static VOID NTAPI Unload(PDRIVER_OBJECT)
{
    DbgPrint("[step] unload\n");
    DbgPrint("the list is freed: %s\n", NT_SUCCESS(free_lookaside()) ? "yes" : "no");
}

extern "C" NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT driver, PUNICODE_STRING)
{
    driver->DriverUnload = Unload;
    NTSTATUS status = init_lookaside(LOOKASIDE_TAG);
    if (!NT_SUCCESS(status)) {
        /* As on Wine, which has no such lists. */
        DbgPrint("[skip] contexts: the list cannot be made, %#lx\n", (ULONG)status);
        return status;
    }
    for (auto const volatile &step : steps) {
        if (NT_SUCCESS(status))
            status = step();
    }
    if (!NT_SUCCESS(status))
        free_lookaside();
    return status;
}
