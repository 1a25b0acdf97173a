//! What drops find that run while a panic unwinds. Nobody else will ever run again in the machine, so that what others hold is free; what the thread itself holds is not.

use super::kernel::Kernel;
use super::object::{Kind, ObjId};
use ksync_sys::{FAST_MUTEX, KMUTANT};

impl Kernel {
    /// Others hold what lies at an address no more, if that is a lock.
    #[cold]
    pub(crate) fn leave_to_unwinding(&mut self, address: usize) {
        let Some(id) = self.objects.find(address) else { return };
        let (thread, cpu, key) = (self.current_thread(), self.cpu, self.resource_key());
        match &mut self.objects[id].kind {
            Kind::Mutant(state) if state.owner.is_some() && state.owner != thread => {
                state.owner = None;
                self.free_words_of_mutant(id);
            }
            Kind::FastMutex(state) if state.owner.is_some() && state.owner != thread => {
                state.owner = None;
                self.write_fast_mutex(address as *mut FAST_MUTEX, 1, std::ptr::null_mut());
            }
            Kind::SpinLock(state) => {
                state.turning.clear();
                if state.owner.is_some_and(|owner| owner.cpu != cpu) {
                    state.owner = None;
                    self.write_spin_word(id, 0);
                }
            }
            Kind::SpinRw(state) => {
                state.turning.clear();
                state.exclusive = state.exclusive.filter(|owner| owner.cpu == cpu);
                state.shared.retain(|owner| owner.cpu == cpu);
                self.write_spin_rw_word(id);
            }
            Kind::PushLock(state) => {
                state.leave_to(thread);
                self.write_push_word(id);
            }
            Kind::Resource(state) => {
                state.leave_to(key);
                self.write_resource(id);
            }
            _ => {}
        }
    }

    /// A mutex that nobody owns any more looks so.
    fn free_words_of_mutant(&self, id: ObjId) {
        let object = &self.objects[id];
        object.set_signal_state(1);
        // SAFETY: a registered mutex's memory is valid.
        unsafe { (*(object.address as *mut KMUTANT)).OwnerThread = std::ptr::null_mut() };
    }
}
