//! The system calls of the attempts, made by number, as a hostile program would.
#![expect(unsafe_code, reason = "an attack is made of raw system calls")]

use std::ffi::{CString, c_long};
use std::io::Read as _;
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

/// Has so many children at once, each of which ended already but is not yet waited for, and still counts.
pub(crate) fn fork_at_once(count: usize) -> Attempt {
    let mut result = Ok(());
    for _ in 0..count {
        // SAFETY: this program has one thread; the child only ends.
        match unsafe { libc::fork() } {
            -1 => {
                result = Err(last_error());
                break;
            }
            // SAFETY: `_exit` has no preconditions.
            0 => unsafe { libc::_exit(0) },
            _ => {}
        }
    }
    // SAFETY: without an out-parameter nothing is written; it ends when no child is left.
    while unsafe { libc::wait(ptr::null_mut()) } > 0 {}
    result
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

/// Holds so many bytes in each of so many processes at once, and none of them longer than this one waits for all.
pub(crate) fn allocate_together(processes: usize, bytes: usize) -> Attempt {
    let pipe = || std::io::pipe().map_err(|error| error.raw_os_error().unwrap_or(0));
    let ((mut have_all, has), (mut all_have, go_on)) = (pipe()?, pipe()?);
    let mut result = Ok(());
    for _ in 0..processes {
        // SAFETY: this program has one thread.
        match unsafe { libc::fork() } {
            -1 => result = Err(last_error()),
            0 => {
                drop(go_on);
                let (_, errno) = allocate_until_refused(bytes);
                drop(has);
                let _ = all_have.read(&mut [0]);
                // SAFETY: `_exit` has no preconditions.
                unsafe { libc::_exit(errno) }
            }
            _ => {}
        }
    }
    drop(has);
    // Ends when everybody has its memory, or has been killed.
    let _ = have_all.read(&mut [0]);
    drop(go_on);
    let mut status = 0;
    // SAFETY: the out-parameter is valid for writes.
    while unsafe { libc::wait(&raw mut status) } > 0 {
        if status != 0 {
            result = Err(libc::ENOMEM);
        }
    }
    result
}

/// A POSIX message queue that everybody may open.
pub(crate) fn make_queue(name: &str) -> std::io::Result<()> {
    // SAFETY: the name is alive during the call; `umask` touches no memory.
    unsafe { libc::umask(0) };
    let flags = i64::from(libc::O_CREAT | libc::O_RDWR);
    attempt(libc::SYS_mq_open, &[text(name), flags, 0o666, 0]).map_err(as_error)
}

pub(crate) fn remove_queue(name: &str) -> std::io::Result<()> {
    attempt(libc::SYS_mq_unlink, &[text(name)]).map_err(as_error)
}

fn as_error(errno: i32) -> std::io::Error {
    std::io::Error::from_raw_os_error(errno)
}

/// Becomes a copy of this program that stands in no file system; returns only an error.
pub(crate) fn execute_from_memory(arguments: &[&str]) -> std::io::Result<std::io::Error> {
    use std::os::unix::process::CommandExt as _;
    let memory = call(libc::SYS_memfd_create, &[text("probe"), 0]).map_err(as_error)?;
    let path = format!("/proc/self/fd/{memory}");
    std::fs::write(&path, std::fs::read("/proc/self/exe")?)?;
    Ok(std::process::Command::new(path).args(arguments).exec())
}

/// Becomes another program, for which the kernel has no Landlock; returns only an error.
pub(crate) fn execute_without_landlock(
    program: &str,
    arguments: &[&str],
) -> anyhow::Result<std::io::Error> {
    use std::os::unix::process::CommandExt as _;
    let missing = u32::try_from(libc::ENOSYS)?;
    let filter = seccompiler::SeccompFilter::new(
        [(libc::SYS_landlock_create_ruleset, Vec::new())].into(),
        seccompiler::SeccompAction::Allow,
        seccompiler::SeccompAction::Errno(missing),
        std::env::consts::ARCH.try_into()?,
    )?;
    let instructions: seccompiler::BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&instructions)?;
    Ok(std::process::Command::new(program).args(arguments).exec())
}

/// Does this until it fails, at most so often: how often it was done, and why no more.
pub(crate) fn pile_up(most: usize, add: fn() -> Attempt) -> (usize, i32) {
    for count in 0..most {
        if let Err(errno) = add() {
            return (count, errno);
        }
    }
    (most, 0)
}

/// A filter of system calls that allows each.
pub(crate) fn add_filter() -> Attempt {
    // One instruction, `return allow`; and how many there are, and where.
    let program = [0x06_u64 | (0x7FFF_0000 << 32)];
    let filter = [1_u64, address(&program).cast_unsigned()];
    attempt(libc::SYS_seccomp, &[1, 0, address(&filter)])
}

/// A ruleset that forbids nothing which is done here: making block devices.
pub(crate) fn add_rules() -> Attempt {
    let handled = [1_u64 << 11];
    let ruleset = call(
        libc::SYS_landlock_create_ruleset,
        &[address(&handled), 8, 0],
    )?;
    attempt(libc::SYS_landlock_restrict_self, &[ruleset, 0])
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
