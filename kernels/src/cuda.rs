//! Whether a usable CUDA driver is there. No operation runs on it yet; each will sit beside its CPU form in [`ops`](crate::ops).
//!
//! The driver is asked through a handle of our own, symbol by symbol: binding crates panic where a container has a stub
//! driver or where a symbol is missing, and a probe must never do that.
#![expect(unsafe_code, reason = "the driver is a C library, loaded when it is there")]

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::sync::OnceLock;

/// What the machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A driver that started.
    Found {
        /// The newest CUDA it speaks, as (major, minor).
        driver_version: (u32, u32),
        /// Its devices; perhaps none is visible.
        devices: Vec<Device>,
    },
    /// No usable driver, and why.
    Absent(String),
}

/// One graphics card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its memory.
    pub memory_bytes: u64,
    /// What code it runs, as (major, minor).
    pub compute_capability: (u32, u32),
}

/// Asks once; later calls repeat the answer. Never panics.
pub fn probe() -> Probe {
    static ANSWER: OnceLock<Probe> = OnceLock::new();
    ANSWER.get_or_init(|| ask(&NAMES).unwrap_or_else(Probe::Absent)).clone()
}

const NAMES: [&str; 3] = ["libcuda.so.1", "libcuda.so", "nvcuda.dll"];

/// Symbols that running kernels will need: a driver without one of them is as good as none.
const NEEDED: [&str; 12] = [
    "cuGetErrorName",
    "cuGetErrorString",
    "cuDevicePrimaryCtxRetain",
    "cuCtxSetCurrent",
    "cuStreamCreate",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuModuleLoadData",
    "cuModuleGetFunction",
    "cuLaunchKernel",
];

const COMPUTE_CAPABILITY: [c_int; 2] = [75, 76];

fn ask(names: &[&str]) -> Result<Probe, String> {
    // SAFETY: loading a library runs its initialisers; these names are the CUDA driver's own.
    let library = names.iter().find_map(|name| unsafe { libloading::Library::new(name) }.ok());
    let library = library.ok_or("no CUDA driver library is installed")?;
    // A started driver may have threads of its own: it stays loaded for good.
    let library: &'static libloading::Library = Box::leak(Box::new(library));
    let missing = NEEDED.iter().find(|name| {
        // SAFETY: the symbol is only looked up, never called through this type.
        unsafe { library.get::<unsafe extern "C" fn()>(name.as_bytes()) }.is_err()
    });
    if let Some(name) = missing {
        return Err(format!("the CUDA driver library lacks `{name}`"));
    }

    // SAFETY: the signatures below are those of cuda.h, unchanged since CUDA 3.2.
    unsafe {
        let init = symbol::<unsafe extern "C" fn(c_uint) -> c_int>(library, "cuInit")?;
        check("cuInit", init(0))?;
        let mut version = 0;
        let get_version = symbol::<unsafe extern "C" fn(*mut c_int) -> c_int>(library, "cuDriverGetVersion")?;
        check("cuDriverGetVersion", get_version(&raw mut version))?;
        let mut count = 0;
        let get_count = symbol::<unsafe extern "C" fn(*mut c_int) -> c_int>(library, "cuDeviceGetCount")?;
        check("cuDeviceGetCount", get_count(&raw mut count))?;
        let devices = (0..count).map(|ordinal| device(library, ordinal)).collect::<Result<_, _>>()?;
        let version = version.unsigned_abs();
        Ok(Probe::Found { driver_version: (version / 1000, version % 1000 / 10), devices })
    }
}

unsafe fn device(library: &'static libloading::Library, ordinal: c_int) -> Result<Device, String> {
    type GetDevice = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
    type GetName = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
    type GetMemory = unsafe extern "C" fn(*mut usize, c_int) -> c_int;
    type GetAttribute = unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int;
    // SAFETY: the caller has started the driver; every pointer is to a local of the type that cuda.h names.
    unsafe {
        let mut handle = 0;
        check("cuDeviceGet", symbol::<GetDevice>(library, "cuDeviceGet")?(&raw mut handle, ordinal))?;
        let mut name: [c_char; 256] = [0; 256];
        let get_name = symbol::<GetName>(library, "cuDeviceGetName")?;
        // One byte less than there is, so that the last stays zero whatever the driver writes.
        check("cuDeviceGetName", get_name(name.as_mut_ptr(), 255, handle))?;
        let mut memory = 0;
        check("cuDeviceTotalMem", symbol::<GetMemory>(library, "cuDeviceTotalMem_v2")?(&raw mut memory, handle))?;
        let get_attribute = symbol::<GetAttribute>(library, "cuDeviceGetAttribute")?;
        let mut capability = [0u32; 2];
        for (part, attribute) in capability.iter_mut().zip(COMPUTE_CAPABILITY) {
            let mut value = 0;
            check("cuDeviceGetAttribute", get_attribute(&raw mut value, attribute, handle))?;
            *part = value.unsigned_abs();
        }
        let name = CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned();
        Ok(Device { name, memory_bytes: memory as u64, compute_capability: capability.into() })
    }
}

/// # Safety
/// `T` is the function's type.
unsafe fn symbol<T>(
    library: &'static libloading::Library,
    name: &str,
) -> Result<libloading::Symbol<'static, T>, String> {
    // SAFETY: by this function's own contract.
    unsafe { library.get::<T>(name.as_bytes()) }.map_err(|_| format!("the CUDA driver library lacks `{name}`"))
}

fn check(call: &str, code: c_int) -> Result<(), String> {
    match code {
        0 => Ok(()),
        100 => Err("the CUDA driver sees no device".to_owned()),
        code => Err(format!("the CUDA driver does not start: `{call}` gave {code}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_driver_is_told_so() {
        assert_eq!(ask(&["libnot-there.so"]), Err("no CUDA driver library is installed".to_owned()));
    }

    #[test]
    fn a_library_that_is_no_driver_is_refused_without_a_panic() {
        if cfg!(target_os = "linux") {
            assert_eq!(ask(&["libm.so.6"]), Err("the CUDA driver library lacks `cuGetErrorName`".to_owned()));
        }
    }

    #[test]
    fn the_probe_answers_twice_alike() {
        assert_eq!(probe(), probe());
    }
}
