//! References to objects.

use crate::*;

routines! {
    // References.

    /// References the object of a handle, after checks of its type and access.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-obreferenceobjectbyhandle)
    fn ObReferenceObjectByHandle(Handle: HANDLE, DesiredAccess: ACCESS_MASK, ObjectType: *mut OBJECT_TYPE, AccessMode: KPROCESSOR_MODE, Object: *mut PVOID, HandleInformation: *mut OBJECT_HANDLE_INFORMATION) -> NTSTATUS;

    /// References an object, after a check of its type.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-obreferenceobjectbypointer)
    fn ObReferenceObjectByPointer(Object: PVOID, DesiredAccess: ACCESS_MASK, ObjectType: *mut OBJECT_TYPE, AccessMode: KPROCESSOR_MODE) -> NTSTATUS;

    /// References an object.
    ///
    /// `ObReferenceObject` in C.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-obfreferenceobject)
    fn ObfReferenceObject(Object: PVOID) -> LONG_PTR;

    /// References an object unless it is being deleted already.
    ///
    /// Not exported by Windows 7.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-obreferenceobjectsafe)
    fn ObReferenceObjectSafe(Object: PVOID) -> BOOLEAN;

    /// Gives a reference back; the last one deletes the object.
    ///
    /// `ObDereferenceObject` in C.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; `PASSIVE_LEVEL` if it may be the last.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-obfdereferenceobject)
    fn ObfDereferenceObject(Object: PVOID) -> LONG_PTR;

    /// Gives a reference back; the last one has a worker delete the object.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-obdereferenceobjectdeferdelete)
    fn ObDereferenceObjectDeferDelete(Object: PVOID);

    /// `ObfReferenceObject` with a tag for the debugger.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-obreferenceobjectwithtag)
    fn ObfReferenceObjectWithTag(Object: PVOID, Tag: ULONG) -> LONG_PTR;

    /// `ObfDereferenceObject` with a tag for the debugger.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`; `PASSIVE_LEVEL` if it may be the last.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-obdereferenceobjectwithtag)
    fn ObfDereferenceObjectWithTag(Object: PVOID, Tag: ULONG) -> LONG_PTR;

    /// `ObDereferenceObjectDeferDelete` with a tag for the debugger.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-obdereferenceobjectdeferdeletewithtag)
    fn ObDereferenceObjectDeferDeleteWithTag(Object: PVOID, Tag: ULONG);

    // Handles and types.

    /// Opens a handle to an object.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-obopenobjectbypointer)
    fn ObOpenObjectByPointer(Object: PVOID, HandleAttributes: ULONG, PassedAccessState: *mut ACCESS_STATE, DesiredAccess: ACCESS_MASK, ObjectType: *mut OBJECT_TYPE, AccessMode: KPROCESSOR_MODE, Handle: *mut HANDLE) -> NTSTATUS;

    /// Returns the type of an object.
    ///
    /// Undocumented.
    ///
    /// # IRQL
    /// Any level.
    fn ObGetObjectType(Object: PVOID) -> *mut OBJECT_TYPE;
}
