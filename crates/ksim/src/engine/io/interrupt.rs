//! Connected interrupts.

use crate::engine::kernel::{Check, Kernel};
use crate::engine::object::{Kind, ObjId};
use crate::engine::spin::Attempt;
use ksync_sys::{
    DEVICE_OBJECT, KINTERRUPT, KSERVICE_ROUTINE, KSPIN_LOCK, NTSTATUS, PVOID, STATUS_INSUFFICIENT_RESOURCES,
    STATUS_INVALID_PARAMETER,
};

/// The tag of interrupt objects, as in NT.
const TAG: u32 = u32::from_le_bytes(*b"IoIn");
/// What a KINTERRUPT takes, about. Drivers only pass its address.
const BYTES: usize = 256;
/// Where its own lock is in it.
const OWN_LOCK: usize = 16;
/// The levels of devices.
const DEVICE_LEVELS: std::ops::RangeInclusive<u8> = 3..=12;

/// What IoConnectInterrupt is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    pub(crate) routine: KSERVICE_ROUTINE,
    pub(crate) context: PVOID,
    /// Null for a lock of its own.
    pub(crate) lock: *mut KSPIN_LOCK,
    pub(crate) vector: u32,
    pub(crate) irql: u8,
    pub(crate) synchronize_irql: u8,
    pub(crate) latched: bool,
    pub(crate) shared: bool,
}

/// The line by which a device interrupts, as plug and play has assigned it: see [`assign_interrupt`](crate::assign_interrupt).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterruptLine {
    /// The vector, which [`interrupt`](crate::interrupt) takes.
    pub vector: u32,
    /// Its level.
    pub irql: u8,
    /// The device asks once. Otherwise it asks until it is served.
    pub latched: bool,
    /// Other devices may have the same line.
    pub shared: bool,
}

/// An interrupt's state.
#[derive(Debug)]
pub(crate) struct InterruptState {
    pub(crate) connection: Connection,
    pub(crate) driver: Option<u16>,
    /// The order of connection.
    order: u64,
}

/// A service routine to call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Service {
    pub(crate) interrupt: *mut KINTERRUPT,
    pub(crate) connection: Connection,
    pub(crate) driver: Option<u16>,
    pub(crate) order: u64,
}

impl Kernel {
    /// The interrupt at `pointer`.
    pub(crate) fn interrupt_at(&mut self, pointer: *const KINTERRUPT) -> Check<ObjId> {
        self.object_of_kind(pointer, "interrupt", |kind| matches!(kind, Kind::Interrupt(_)))
    }

    /// Gives a device a line.
    pub(crate) fn assign_interrupt(&mut self, device: *mut DEVICE_OBJECT, line: InterruptLine) {
        self.io.lines.retain(|(other, _)| *other != device as usize);
        self.io.lines.push((device as usize, line));
    }

    /// A device's line.
    pub(crate) fn interrupt_line(&self, device: *mut DEVICE_OBJECT) -> Option<InterruptLine> {
        self.io.lines.iter().find(|(other, _)| *other == device as usize).map(|(_, line)| *line)
    }

    fn interrupt_state(&self, id: ObjId) -> &InterruptState {
        match &self.objects[id].kind {
            Kind::Interrupt(state) => state,
            _ => unreachable!("the caller found an interrupt here"),
        }
    }

    /// How an interrupt is connected.
    pub(crate) fn connection(&self, id: ObjId) -> Connection {
        self.interrupt_state(id).connection
    }

    /// Connects an interrupt.
    pub(crate) fn connect_interrupt(&mut self, connection: Connection) -> Result<*mut KINTERRUPT, NTSTATUS> {
        let Connection { vector, irql, synchronize_irql, .. } = connection;
        let levels = DEVICE_LEVELS.contains(&irql) && (irql..=*DEVICE_LEVELS.end()).contains(&synchronize_irql);
        // A vector is shared by all who have it, in one mode, or by nobody.
        let compatible = self
            .services(vector)
            .iter()
            .all(|other| other.connection.shared && connection.shared && other.connection.latched == connection.latched);
        if !levels || !compatible {
            return Err(STATUS_INVALID_PARAMETER);
        }
        let driver = self.current_driver();
        let memory = self.allocate_system(BYTES, TAG, driver);
        if memory.is_null() {
            return Err(STATUS_INSUFFICIENT_RESOURCES);
        }
        let own = memory.wrapping_add(OWN_LOCK).cast::<KSPIN_LOCK>();
        let lock = if connection.lock.is_null() { own } else { connection.lock };
        self.io.interrupts += 1;
        let state = InterruptState { connection: Connection { lock, ..connection }, driver, order: self.io.interrupts };
        self.objects.register(memory as usize, Kind::Interrupt(Box::new(state)));
        Ok(memory.cast())
    }

    /// Takes an interrupt away. The caller has seen to it that its service routine does not run.
    pub(crate) fn disconnect_interrupt(&mut self, id: ObjId) -> Check<()> {
        let memory = self.objects[id].address;
        self.objects.remove(id);
        self.release_system(memory)
    }

    /// What is connected to a vector, in order.
    fn services(&self, vector: u32) -> Vec<Service> {
        let connected = self.objects.iter().filter_map(|(_, object)| match &object.kind {
            Kind::Interrupt(state) if state.connection.vector == vector => Some(Service {
                interrupt: object.address as *mut KINTERRUPT,
                connection: state.connection,
                driver: state.driver,
                order: state.order,
            }),
            _ => None,
        });
        let mut services: Vec<_> = connected.collect();
        services.sort_by_key(|service| service.order);
        services
    }

    /// What is connected to a vector after the one of that order.
    pub(crate) fn next_service(&self, vector: u32, order: u64) -> Option<Service> {
        self.services(vector).into_iter().find(|service| service.order > order)
    }

    /// One attempt to take the lock for a service routine. None if the interrupt has been disconnected meanwhile, and its lock with it.
    pub(crate) fn enter_service(&mut self, service: &Service, old_irql: u8) -> Check<Option<Attempt>> {
        let connected = self.objects.find(service.interrupt as usize).is_some_and(|id| match &self.objects[id].kind {
            Kind::Interrupt(state) => state.order == service.order,
            _ => false,
        });
        if connected { self.spin_acquire(service.connection.lock, Some(old_irql), 0).map(Some) } else { Ok(None) }
    }

    /// The vector of an interrupt that a driver has connected.
    pub(crate) fn interrupt_of(&self, driver: u16) -> Option<(usize, u32)> {
        self.objects.iter().find_map(|(_, object)| match &object.kind {
            Kind::Interrupt(state) if state.driver == Some(driver) => Some((object.address, state.connection.vector)),
            _ => None,
        })
    }
}
