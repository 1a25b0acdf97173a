//! What interrupts are connected by.

use crate::{
    BOOLEAN, DEVICE_OBJECT, KAFFINITY, KINTERRUPT, KINTERRUPT_MODE, KIRQL, KSPIN_LOCK, PKSERVICE_ROUTINE, PVOID, ULONG, USHORT,
};

/// A version of [`IO_CONNECT_INTERRUPT_PARAMETERS`]: the driver says all that there is to say.
pub const CONNECT_FULLY_SPECIFIED: ULONG = 1;
/// A version of [`IO_CONNECT_INTERRUPT_PARAMETERS`]: the system knows the device's line.
pub const CONNECT_LINE_BASED: ULONG = 2;
/// A version of [`IO_CONNECT_INTERRUPT_PARAMETERS`]: the system knows the device's messages.
pub const CONNECT_MESSAGE_BASED: ULONG = 3;
/// A version of [`IO_CONNECT_INTERRUPT_PARAMETERS`]: as [`CONNECT_FULLY_SPECIFIED`], with a group of processors.
pub const CONNECT_FULLY_SPECIFIED_GROUP: ULONG = 4;

/// The service routine of interrupts by message.
pub type KMESSAGE_SERVICE_ROUTINE =
    unsafe extern "system-unwind" fn(Interrupt: *mut KINTERRUPT, ServiceContext: PVOID, MessageID: ULONG) -> BOOLEAN;
/// A [`KMESSAGE_SERVICE_ROUTINE`], or null.
pub type PKMESSAGE_SERVICE_ROUTINE = Option<KMESSAGE_SERVICE_ROUTINE>;

/// What `IoConnectInterruptEx` is asked for.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct IO_CONNECT_INTERRUPT_PARAMETERS {
    /// Which of the parameters are there: [`CONNECT_FULLY_SPECIFIED`] and its like. After a failure with STATUS_NOT_SUPPORTED, one that the system has; after
    /// [`CONNECT_MESSAGE_BASED`], how it was connected.
    pub Version: ULONG,
    /// The parameters.
    pub Anonymous: IO_CONNECT_INTERRUPT_PARAMETERS_0,
}

/// The parameters of each version.
#[repr(C)]
#[derive(Clone, Copy)]
pub union IO_CONNECT_INTERRUPT_PARAMETERS_0 {
    /// Of [`CONNECT_FULLY_SPECIFIED`] and [`CONNECT_FULLY_SPECIFIED_GROUP`].
    pub FullySpecified: IO_CONNECT_INTERRUPT_FULLY_SPECIFIED_PARAMETERS,
    /// Of [`CONNECT_LINE_BASED`].
    pub LineBased: IO_CONNECT_INTERRUPT_LINE_BASED_PARAMETERS,
    /// Of [`CONNECT_MESSAGE_BASED`].
    pub MessageBased: IO_CONNECT_INTERRUPT_MESSAGE_BASED_PARAMETERS,
}

/// The parameters of [`CONNECT_FULLY_SPECIFIED`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IO_CONNECT_INTERRUPT_FULLY_SPECIFIED_PARAMETERS {
    /// The device's physical device object.
    pub PhysicalDeviceObject: *mut DEVICE_OBJECT,
    /// Where the interrupt object is stored.
    pub InterruptObject: *mut *mut KINTERRUPT,
    /// The service routine.
    pub ServiceRoutine: PKSERVICE_ROUTINE,
    /// Its context.
    pub ServiceContext: PVOID,
    /// A lock that several interrupts have together, or null.
    pub SpinLock: *mut KSPIN_LOCK,
    /// The level that the service routine runs at.
    pub SynchronizeIrql: KIRQL,
    /// Must be false on x86-64.
    pub FloatingSave: BOOLEAN,
    /// Others may have the vector, too.
    pub ShareVector: BOOLEAN,
    /// The vector.
    pub Vector: ULONG,
    /// The interrupt's level.
    pub Irql: KIRQL,
    /// How the device asks.
    pub InterruptMode: KINTERRUPT_MODE,
    /// The processors that may serve it.
    pub ProcessorEnableMask: KAFFINITY,
    /// Their group, of [`CONNECT_FULLY_SPECIFIED_GROUP`].
    pub Group: USHORT,
}

/// The parameters of [`CONNECT_LINE_BASED`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct IO_CONNECT_INTERRUPT_LINE_BASED_PARAMETERS {
    /// The device's physical device object.
    pub PhysicalDeviceObject: *mut DEVICE_OBJECT,
    /// Where the interrupt object is stored.
    pub InterruptObject: *mut *mut KINTERRUPT,
    /// The service routine.
    pub ServiceRoutine: PKSERVICE_ROUTINE,
    /// Its context.
    pub ServiceContext: PVOID,
    /// A lock that several interrupts have together, or null.
    pub SpinLock: *mut KSPIN_LOCK,
    /// The level that the service routine runs at, or 0 for the interrupt's own.
    pub SynchronizeIrql: KIRQL,
    /// Must be false on x86-64.
    pub FloatingSave: BOOLEAN,
}

/// The parameters of [`CONNECT_MESSAGE_BASED`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct IO_CONNECT_INTERRUPT_MESSAGE_BASED_PARAMETERS {
    /// The device's physical device object.
    pub PhysicalDeviceObject: *mut DEVICE_OBJECT,
    /// Where the table of the messages is stored, or the interrupt object of a line.
    pub ConnectionContext: IO_INTERRUPT_CONNECTION_CONTEXT,
    /// The service routine of the messages.
    pub MessageServiceRoutine: PKMESSAGE_SERVICE_ROUTINE,
    /// Its context.
    pub ServiceContext: PVOID,
    /// A lock that all messages have together, or null.
    pub SpinLock: *mut KSPIN_LOCK,
    /// The level that the service routine runs at, or 0 for the interrupt's own.
    pub SynchronizeIrql: KIRQL,
    /// Must be false on x86-64.
    pub FloatingSave: BOOLEAN,
    /// The service routine of a device that has a line only.
    pub FallBackServiceRoutine: PKSERVICE_ROUTINE,
}

/// Where a connection is stored.
#[repr(C)]
#[derive(Clone, Copy)]
pub union IO_INTERRUPT_CONNECTION_CONTEXT {
    /// Whichever it is.
    pub Generic: *mut PVOID,
    /// The interrupt object of a line.
    pub InterruptObject: *mut *mut KINTERRUPT,
}

/// What `IoDisconnectInterruptEx` is asked for.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct IO_DISCONNECT_INTERRUPT_PARAMETERS {
    /// How it was connected.
    pub Version: ULONG,
    /// What was connected.
    pub ConnectionContext: IO_INTERRUPT_CONNECTION,
}

/// What was connected.
#[repr(C)]
#[derive(Clone, Copy)]
pub union IO_INTERRUPT_CONNECTION {
    /// Whichever it is.
    pub Generic: PVOID,
    /// The interrupt object of a line.
    pub InterruptObject: *mut KINTERRUPT,
}

opaque_debug! {
    IO_CONNECT_INTERRUPT_PARAMETERS IO_CONNECT_INTERRUPT_PARAMETERS_0 IO_CONNECT_INTERRUPT_MESSAGE_BASED_PARAMETERS
    IO_INTERRUPT_CONNECTION_CONTEXT IO_DISCONNECT_INTERRUPT_PARAMETERS IO_INTERRUPT_CONNECTION
}

layout! {
    IO_CONNECT_INTERRUPT_PARAMETERS: 80, Anonymous @ 8;
    IO_CONNECT_INTERRUPT_FULLY_SPECIFIED_PARAMETERS: 72, InterruptObject @ 8, ServiceRoutine @ 16, ServiceContext @ 24,
        SpinLock @ 32, SynchronizeIrql @ 40, FloatingSave @ 41, ShareVector @ 42, Vector @ 44, Irql @ 48, InterruptMode @ 52,
        ProcessorEnableMask @ 56, Group @ 64;
    IO_CONNECT_INTERRUPT_LINE_BASED_PARAMETERS: 48, InterruptObject @ 8, ServiceRoutine @ 16, ServiceContext @ 24,
        SpinLock @ 32, SynchronizeIrql @ 40, FloatingSave @ 41;
    IO_CONNECT_INTERRUPT_MESSAGE_BASED_PARAMETERS: 56, ConnectionContext @ 8, MessageServiceRoutine @ 16, ServiceContext @ 24,
        SpinLock @ 32, SynchronizeIrql @ 40, FloatingSave @ 41, FallBackServiceRoutine @ 48;
    IO_DISCONNECT_INTERRUPT_PARAMETERS: 16, ConnectionContext @ 8;
}
