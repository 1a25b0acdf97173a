//! What is run on the machine: a driver is loaded, its device used, and the driver unloaded.

use crate::arguments::ProgramArguments;
use crate::output::Failure;
use anyhow::Context;
use ksim::image::Image;
use ksim::{IoResult, Requestor};
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How large the output buffer of a request is where nothing is said.
const OUTPUT_BYTES: usize = 4096;

/// A control request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Ioctl {
    pub(crate) code: u32,
    pub(crate) input: Vec<u8>,
    pub(crate) output: usize,
}

impl FromStr for Ioctl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let code = parts.next().unwrap_or_default();
        let code = number(code).ok_or_else(|| format!("`{code}` is not a control code such as 0x222000"))?;
        let input = hex(parts.next().unwrap_or_default())?;
        let output = match parts.next() {
            None => OUTPUT_BYTES,
            Some(size) => number(size).ok_or_else(|| format!("`{size}` is not a size in bytes"))? as usize,
        };
        if parts.next().is_some() {
            return Err("a request is CODE[:HEX[:SIZE]], and this has more parts".to_owned());
        }
        Ok(Self { code, input, output })
    }
}

impl fmt::Display for Ioctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}:{}:{}", self.code, Hex(&self.input), self.output)
    }
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The bytes that pairs of hexadecimal digits stand for.
fn hex(text: &str) -> Result<Vec<u8>, String> {
    let bytes = text.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()));
        pair.filter(|pair| pair.len() == 2).and_then(|pair| u8::from_str_radix(pair, 16).ok())
    });
    bytes.collect::<Option<_>>().ok_or_else(|| format!("`{text}` is not a row of bytes, two hexadecimal digits each"))
}

/// Bytes as hexadecimal digits.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A driver with what is done to it.
#[derive(Debug)]
pub(crate) struct Program {
    image: Image,
    name: String,
    device: Option<String>,
    ioctls: Vec<Ioctl>,
    unload: bool,
    refused: Mutex<Option<Refusal>>,
    /// Only of a single run: a search would gather them without end.
    answers: Option<Mutex<Vec<(Ioctl, IoResult)>>>,
}

/// What the driver did not do.
#[derive(Clone, Debug)]
pub(crate) enum Refusal {
    /// Its entry failed.
    Entry(i32),
    /// The device could not be opened.
    Open(String, i32),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry(status) => write!(f, "DriverEntry failed with {}", Status(*status)),
            Self::Open(device, status) => write!(f, "{device} cannot be opened: {}", Status(*status)),
        }
    }
}

/// A status with its name.
pub(crate) struct Status(pub(crate) i32);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ksim::status_name(self.0) {
            Some(name) => write!(f, "{name}"),
            None => write!(f, "status {:#010x}", self.0),
        }
    }
}

impl Program {
    /// Reads the driver's image.
    pub(crate) fn open(arguments: &ProgramArguments, unload: bool) -> Result<Self, Failure> {
        let image = open_image(&arguments.driver)?;
        Image::check_host().map_err(Failure::not_loadable)?;
        let name = arguments.driver.file_stem().map_or_else(|| "driver".into(), |stem| stem.to_string_lossy());
        Ok(Self {
            image,
            name: name.into_owned(),
            device: arguments.device.clone(),
            ioctls: arguments.ioctl.clone(),
            unload,
            refused: Mutex::new(None),
            answers: None,
        })
    }

    /// What a thread of the machine does.
    pub(crate) fn run(&self) {
        let driver = match ksim::load_image(&self.name, &self.image) {
            Ok(driver) => driver,
            Err(status) => {
                *lock(&self.refused) = Some(Refusal::Entry(status));
                return;
            }
        };
        if let Some(device) = &self.device {
            self.use_device(device);
        }
        if self.unload {
            driver.unload();
        }
    }

    /// The driver's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn use_device(&self, name: &str) {
        let device = match ksim::open_device(name, Requestor::User) {
            Ok(device) => device,
            Err(status) => {
                *lock(&self.refused) = Some(Refusal::Open(name.to_owned(), status));
                return;
            }
        };
        for ioctl in &self.ioctls {
            let result = device.device_control(ioctl.code, &ioctl.input, ioctl.output);
            if let Some(answers) = &self.answers {
                lock(answers).push((ioctl.clone(), result));
            }
        }
        device.close();
    }

    /// What the driver refused in the last run that it refused something in.
    pub(crate) fn refused(&self) -> Option<Refusal> {
        lock(&self.refused).clone()
    }

    /// The same, whose answers are kept.
    pub(crate) fn keeping_answers(self) -> Self {
        Self { answers: Some(Mutex::default()), ..self }
    }

    /// The answers to its requests, if they are kept.
    pub(crate) fn take_answers(&self) -> Vec<(Ioctl, IoResult)> {
        self.answers.as_ref().map(|answers| std::mem::take(&mut *lock(answers))).unwrap_or_default()
    }
}

/// A machine that stops leaves what ran on it where it stands, which may be within a lock: what it protects is whole all the same.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads an image.
pub(crate) fn open_image(path: &std::path::Path) -> Result<Image, Failure> {
    Image::open(path).with_context(|| format!("cannot load {}", path.display())).map_err(Failure::not_loadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let ioctl = |text: &str| text.parse::<Ioctl>();
        let wanted = Ioctl { code: 0x22_2000, input: Vec::new(), output: OUTPUT_BYTES };
        assert_eq!(ioctl("0x222000"), Ok(wanted.clone()));
        assert_eq!(ioctl("2236416"), Ok(wanted));
        let wanted = Ioctl { code: 0x22_2004, input: vec![0, 0xff, 0x1a], output: 8 };
        assert_eq!(ioctl("0X222004:00fF1a:8"), Ok(wanted.clone()));
        assert_eq!(ioctl(&wanted.to_string()), Ok(wanted));
        assert_eq!(ioctl("1::0").map(|ioctl| ioctl.output), Ok(0));
        for wrong in ["", "x", "0x", "0x1ffffffff", "1:0", "1:0g", "1:+1", "1:é", "1::x", "1:::"] {
            assert!(ioctl(wrong).is_err(), "{wrong}");
        }
    }
}
