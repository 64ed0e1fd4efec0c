//! System calls by number, for attempts that no library makes on purpose.

/// Makes a system call with null pointers and zeros beyond what is given. Gives its result, or the error number negated.
///
/// For calls that are to be refused: none of those made here does anything with such arguments.
pub fn call(number: libc::c_long, first: libc::c_long, second: libc::c_long) -> i64 {
    // SAFETY: no argument is a pointer to anything but null, which the kernel refuses (EFAULT) wherever it wants memory. The numbers
    // come from `attempts`, and none of them changes this process's memory with zeros for arguments.
    #[allow(unsafe_code)]
    let result = unsafe { libc::syscall(number, first, second, 0, 0, 0, 0) };
    if result == -1 {
        -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
    } else {
        result
    }
}
