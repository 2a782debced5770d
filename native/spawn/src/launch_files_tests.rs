use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

use rustix::net::SocketType;

use super::*;
use crate::jail::pair;

fn path() -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("casemate-launch-{}", std::process::id()));
    std::fs::write(&path, [0; 4096]).unwrap();
    path
}

#[test]
fn takes_only_regular_files_of_the_size_and_access_the_spec_says() {
    let path = path();
    let code = |file: &dyn AsFd, size, access| {
        check_file("x", file.as_fd(), size, access).map_err(|refusal| refusal.code)
    };
    let open = |write: bool, flags| {
        OpenOptions::new().read(true).write(write).custom_flags(flags).open(&path).unwrap()
    };
    let (read, both) = (OFlags::RDONLY, OFlags::RDWR);
    assert_eq!(code(&open(false, 0), 4096, read), Ok(()));
    assert_eq!(code(&open(true, 0), 4096, both), Ok(()));
    let refused = Err("DESCRIPTOR");
    assert_eq!(code(&open(false, 0), 4095, read), refused);
    assert_eq!(code(&open(true, 0), 4096, read), refused);
    assert_eq!(code(&open(false, 0), 4096, both), refused);
    assert_eq!(code(&open(false, libc::O_PATH), 4096, read), refused);
    assert_eq!(code(&open(true, libc::O_APPEND), 4096, both), refused);
    assert_eq!(code(&open(true, libc::O_DIRECT), 4096, both), refused);
    assert_eq!(code(&File::open("/dev/null").unwrap(), 0, read), refused);
    assert_eq!(code(&File::open("/").unwrap(), 4096, read), refused);
    assert_eq!(code(&pair(SocketType::STREAM).unwrap().0, 0, both), refused);
    std::fs::remove_file(path).unwrap();
}
