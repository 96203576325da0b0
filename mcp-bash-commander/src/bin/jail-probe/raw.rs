//! The system calls of the attempts, made by number, as a hostile program would.
#![expect(unsafe_code, reason = "an attack is made of raw system calls")]

use std::ffi::{CString, c_long};
use std::os::fd::RawFd;
use std::ptr;

/// The result of an attempt: done, or refused with this error number.
pub(crate) type Attempt = Result<(), i32>;

/// Makes a system call with numbers for arguments.
pub(crate) fn call(number: c_long, arguments: &[i64]) -> Result<i64, i32> {
    let mut all = [0_i64; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    // SAFETY: pointers among the arguments come from `text` or from buffers of the caller, both alive during the call.
    let result = unsafe { libc::syscall(number, all[0], all[1], all[2], all[3], all[4], all[5]) };
    if result < 0 {
        Err(last_error())
    } else {
        Ok(result)
    }
}

/// Like [`call`], for when only success counts.
pub(crate) fn attempt(number: c_long, arguments: &[i64]) -> Attempt {
    call(number, arguments).map(drop)
}

fn last_error() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// A string that lives as long as this process, as an argument.
pub(crate) fn text(text: &str) -> i64 {
    CString::new(text).unwrap_or_default().into_raw() as i64
}

/// The address of a value, as an argument.
pub(crate) fn address<T: ?Sized>(value: &T) -> i64 {
    ptr::from_ref(value).cast::<u8>() as i64
}

/// The address of memory for the kernel to write into, which begins with this content and lives as long as this process.
pub(crate) fn room(content: &[u8]) -> i64 {
    content.to_vec().leak().as_mut_ptr() as i64
}

pub(crate) fn is_open(number: RawFd) -> bool {
    // SAFETY: F_GETFD touches no memory.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}

/// Runs `action` in a process of its own, so that it cannot hurt the others: 0, its error number, or minus the signal that ended it.
pub(crate) fn apart(action: impl FnOnce() -> Attempt) -> i32 {
    // SAFETY: this program has one thread.
    let child = unsafe { libc::fork() };
    match child {
        -1 => last_error(),
        0 => {
            let result = action().err().unwrap_or(0);
            // SAFETY: `_exit` has no preconditions.
            unsafe { libc::_exit(result) }
        }
        child => {
            let mut status = 0;
            // SAFETY: the out-parameter is valid for writes.
            while unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 {}
            if libc::WIFSIGNALED(status) {
                -libc::WTERMSIG(status)
            } else {
                libc::WEXITSTATUS(status)
            }
        }
    }
}

/// Forks processes that wait to be killed, until the kernel refuses or `most` are there. How many, and why no more.
pub(crate) fn fork_until_refused(most: usize) -> (usize, i32) {
    for count in 0..most {
        // SAFETY: this program has one thread; the child only waits.
        match unsafe { libc::fork() } {
            -1 => return (count, last_error()),
            0 => loop {
                // SAFETY: `pause` touches no memory.
                unsafe { libc::pause() };
            },
            _ => {}
        }
    }
    (most, 0)
}

/// Maps and touches memory until the kernel refuses or `most` bytes are there. How many bytes, and why no more.
pub(crate) fn allocate_until_refused(most: usize) -> (usize, i32) {
    const STEP: usize = 1 << 20;
    let mut allocated = 0;
    while allocated < most {
        // SAFETY: an anonymous private mapping at an address of the kernel's choice, written within its length.
        unsafe {
            let block = libc::mmap(
                ptr::null_mut(),
                STEP,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            if block == libc::MAP_FAILED {
                return (allocated, last_error());
            }
            block.cast::<u8>().write_bytes(1, STEP);
        }
        allocated += STEP;
    }
    (allocated, 0)
}

/// The personality and mount calls of the 32-bit convention: `getpid` by `int 0x80`.
#[cfg(target_arch = "x86_64")]
pub(crate) fn int80_getpid() -> Attempt {
    const GETPID: i32 = 20;
    let result: i32;
    // SAFETY: the kernel changes no register but eax (and the scratch registers named), and no memory.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("eax") GETPID => result, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    if result < 0 { Err(-result) } else { Ok(()) }
}

/// `int 0x80` exists on this architecture only.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn int80_getpid() -> Attempt {
    Err(libc::ENOSYS)
}
