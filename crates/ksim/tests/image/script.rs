//! Images that call routines one after another, and say what came of it.

use super::pe::Pe;
use super::run;
use ksim::Machine;

const PAGE: usize = 0x1000;

/// An argument.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arg {
    /// A number.
    N(u64),
    /// The address of data.
    At(Data),
    /// The 8-byte word in data.
    In(Data),
    /// The address of a routine of the image that subtracts one 4-byte number from another, both by address.
    Compare,
}

/// Data of the image, by its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Data(usize);

impl Data {
    pub(super) fn offset(self, bytes: usize) -> Self {
        Self(self.0 + bytes)
    }
}

enum Fixup {
    Import(usize),
    Data(usize),
    Text(usize),
}

/// The calls.
pub(super) struct Script {
    text: Vec<u8>,
    data: Vec<u8>,
    names: Vec<&'static str>,
    fixups: Vec<(usize, Fixup)>,
    expected: Vec<(String, u64)>,
    compare: usize,
    format: Data,
}

impl Script {
    pub(super) fn new() -> Self {
        let mut script = Self {
            // The entry is behind the routines: a jump over them.
            text: vec![0xeb, 0],
            data: Vec::new(),
            names: vec!["DbgPrint"],
            fixups: Vec::new(),
            expected: Vec::new(),
            compare: 0,
            format: Data(0),
        };
        // mov eax, [rcx]; sub eax, [rdx]; ret
        script.compare = script.text.len();
        script.text.extend([0x8b, 0x01, 0x2b, 0x02, 0xc3]);
        // ret
        let unload = script.text.len();
        script.text.push(0xc3);
        script.text[1] = script.text.len() as u8 - 2;
        script.format = script.bytes(b"%I64x\n\0");
        // sub rsp, 0x68; lea rax, [unload]; mov [rcx + DriverUnload], rax
        script.text.extend([0x48, 0x83, 0xec, 0x68, 0x48, 0x8d, 0x05]);
        script.fix(Fixup::Text(unload));
        script.text.extend([0x48, 0x89, 0x41, 0x68]);
        script
    }

    /// Puts bytes into the data, aligned as all objects are.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Data {
        let at = self.data.len().next_multiple_of(16);
        self.data.resize(at, 0);
        self.data.extend(bytes);
        Data(at)
    }

    pub(super) fn zeros(&mut self, count: usize) -> Data {
        self.bytes(&vec![0; count])
    }

    pub(super) fn text(&mut self, text: &str) -> Data {
        self.bytes(&text.bytes().chain([0]).collect::<Vec<_>>())
    }

    pub(super) fn wide(&mut self, text: &str) -> Data {
        self.bytes(&text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect::<Vec<_>>())
    }

    fn fix(&mut self, fixup: Fixup) {
        self.fixups.push((self.text.len(), fixup));
        self.text.extend([0; 4]);
    }

    /// Loads an argument into a register: rcx, rdx, r8, r9, or rax for those on the stack.
    fn load(&mut self, register: usize, argument: Arg) {
        let (number, lea, load): ([u8; 2], [u8; 3], [u8; 3]) = [
            ([0x48, 0xb9], [0x48, 0x8d, 0x0d], [0x48, 0x8b, 0x0d]),
            ([0x48, 0xba], [0x48, 0x8d, 0x15], [0x48, 0x8b, 0x15]),
            ([0x49, 0xb8], [0x4c, 0x8d, 0x05], [0x4c, 0x8b, 0x05]),
            ([0x49, 0xb9], [0x4c, 0x8d, 0x0d], [0x4c, 0x8b, 0x0d]),
            ([0x48, 0xb8], [0x48, 0x8d, 0x05], [0x48, 0x8b, 0x05]),
        ][register.min(4)];
        match argument {
            Arg::N(value) => {
                self.text.extend(number);
                self.text.extend(value.to_le_bytes());
            }
            Arg::At(data) => {
                self.text.extend(lea);
                self.fix(Fixup::Data(data.0));
            }
            Arg::In(data) => {
                self.text.extend(load);
                self.fix(Fixup::Data(data.0));
            }
            Arg::Compare => {
                self.text.extend(lea);
                self.fix(Fixup::Text(self.compare));
            }
        }
        if register >= 4 {
            // mov [rsp + ...], rax
            self.text.extend([0x48, 0x89, 0x44, 0x24, (register * 8) as u8]);
        }
    }

    /// Calls a routine. Its result is in the data that is returned.
    pub(super) fn call(&mut self, name: &'static str, arguments: &[Arg]) -> Data {
        for (register, &argument) in arguments.iter().enumerate() {
            self.load(register, argument);
        }
        let import = self.names.iter().position(|&known| known == name).unwrap_or_else(|| {
            self.names.push(name);
            self.names.len() - 1
        });
        self.text.extend([0xff, 0x15]);
        self.fix(Fixup::Import(import));
        let result = self.zeros(8);
        self.text.extend([0x48, 0x89, 0x05]);
        self.fix(Fixup::Data(result.0));
        result
    }

    /// Calls a routine that is to return a value.
    pub(super) fn check(&mut self, name: &'static str, arguments: &[Arg], value: u64) {
        let result = self.call(name, arguments);
        self.expect(&format!("{name}{arguments:?}"), result, value);
    }

    /// Prints an 8-byte word of the data.
    pub(super) fn show(&mut self, data: Data) {
        let format = self.format;
        self.call("DbgPrint", &[Arg::At(format), Arg::In(data)]);
    }

    /// An 8-byte word of the data is to have a value here.
    pub(super) fn expect(&mut self, what: &str, data: Data, value: u64) {
        self.show(data);
        self.expected.push((what.to_owned(), value));
    }

    /// The first bytes of a place are to be these: at most 8.
    pub(super) fn expect_bytes(&mut self, what: &str, data: Data, bytes: &[u8]) {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        self.expect(what, data, u64::from_le_bytes(word));
    }

    /// The image.
    pub(super) fn image(&self) -> Pe {
        let table = (self.names.len() + 1) * 8;
        let shift = table.next_multiple_of(16);
        // xor eax, eax; add rsp, 0x68; ret
        let mut text = self.text.clone();
        text.extend([0x31, 0xc0, 0x48, 0x83, 0xc4, 0x68, 0xc3]);
        text.resize(text.len().next_multiple_of(PAGE), 0xcc);
        for (at, fixup) in &self.fixups {
            let target = match fixup {
                Fixup::Import(index) => text.len() + index * 8,
                Fixup::Data(offset) => text.len() + shift + offset,
                Fixup::Text(offset) => *offset,
            };
            let displacement = target as i32 - (*at as i32 + 4);
            text[*at..at + 4].copy_from_slice(&displacement.to_le_bytes());
        }
        let mut data = vec![0; shift];
        data.extend(&self.data);
        Pe::new(&text, &data, &self.names)
    }

    /// Runs it all. Returns what was printed.
    pub(super) fn shown(&self) -> Vec<u64> {
        let outcome = run(&Machine::new(), &self.image()).expect_clean();
        outcome.debug_output().iter().map(|line| u64::from_str_radix(line, 16).expect("a number")).collect()
    }

    /// Runs it all, and compares.
    pub(super) fn run(&self) {
        let seen = self.shown();
        assert_eq!(seen.len(), self.expected.len());
        for ((what, expected), seen) in self.expected.iter().zip(seen) {
            assert_eq!(seen, *expected, "{what}: {seen:#x}, not {expected:#x}");
        }
    }
}
