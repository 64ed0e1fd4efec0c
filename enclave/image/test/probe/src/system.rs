//! System calls by number, for attempts that no library makes on purpose.

/// Makes a system call with up to four arguments, none of them a pointer to anything. Gives its result, or the error number negated.
pub fn call(number: libc::c_long, arguments: &[libc::c_long]) -> i64 {
    let at = |index: usize| arguments.get(index).copied().unwrap_or(0);
    // SAFETY: wherever the kernel wants memory it is given null, which it refuses (EFAULT). The calls are those of `attempts`; none of
    // them takes memory away from this process.
    #[allow(unsafe_code)]
    let result = unsafe { libc::syscall(number, at(0), at(1), at(2), at(3), -1, 0) };
    if result == -1 {
        -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
    } else {
        result
    }
}
