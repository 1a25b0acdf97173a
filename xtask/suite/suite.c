/* A driver that runs one test of the test driver of Wine's ntoskrnl.exe, the macro SUITE_TEST: `cargo xtask suite`.
 *
 * The test driver's own entry is left out: it wants files, and a program that controls it.
 */

#define DriverEntry suite_wine_entry
#include "driver.c"
#undef DriverEntry

static void WINAPI suite_unload(DRIVER_OBJECT *driver)
{
    /* The controlling program has this done. */
    IoDetachDevice(lower_device);
    driver_Unload(driver);
}

NTSTATUS WINAPI DriverEntry(DRIVER_OBJECT *driver, UNICODE_STRING *path)
{
    UNICODE_STRING name, link;
    NTSTATUS status;

    driver_obj = driver;
    driver->DriverUnload = suite_unload;
    driver->MajorFunction[IRP_MJ_CREATE] = driver_Create;
    driver->MajorFunction[IRP_MJ_DEVICE_CONTROL] = driver_IoControl;
    driver->MajorFunction[IRP_MJ_FLUSH_BUFFERS] = driver_FlushBuffers;
    driver->MajorFunction[IRP_MJ_QUERY_INFORMATION] = driver_QueryInformation;
    driver->MajorFunction[IRP_MJ_QUERY_VOLUME_INFORMATION] = driver_QueryVolumeInformation;
    driver->MajorFunction[IRP_MJ_CLOSE] = driver_Close;

    RtlInitUnicodeString(&name, L"\\Device\\WineTestDriver");
    RtlInitUnicodeString(&link, L"\\DosDevices\\WineTestDriver");
    if ((status = IoCreateDevice(driver, 0, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &lower_device)))
        return status;
    if ((status = IoCreateSymbolicLink(&link, &name)))
        return status;
    lower_device->Flags &= ~DO_DEVICE_INITIALIZING;
    RtlInitUnicodeString(&name, L"\\Device\\WineTestUpper");
    if ((status = IoCreateDevice(driver, 0, &name, FILE_DEVICE_UNKNOWN, FILE_DEVICE_SECURE_OPEN, FALSE, &upper_device)))
        return status;
    IoAttachDeviceToDeviceStack(upper_device, lower_device);
    upper_device->Flags &= ~DO_DEVICE_INITIALIZING;
    work_item = IoAllocateWorkItem(lower_device);

    pExEventObjectType = get_proc_address("ExEventObjectType");
    pIoFileObjectType = get_proc_address("IoFileObjectType");
    pPsThreadType = get_proc_address("PsThreadType");
    pPsInitialSystemProcess = get_proc_address("PsInitialSystemProcess");

    SUITE_TEST;
    DbgPrint("suite: %d passed, %d failed, %d left out\n", passed, failed, skipped);
    return STATUS_SUCCESS;
}
