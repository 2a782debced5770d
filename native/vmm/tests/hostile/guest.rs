//! The guest: C and assembly of `guest/`, made into a kernel image for the PVH entry, once.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// The image.
pub fn image() -> &'static [u8] {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| {
        // From any crate of the workspace.
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vmm/tests/hostile/guest");
        let build = std::env::temp_dir().join(format!("casemate-hostile-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&build);
        std::fs::create_dir(&build).unwrap();
        for entry in std::fs::read_dir(source).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, build.join(path.file_name().unwrap())).unwrap();
        }
        // 32-bit code that begins without paging, in an ELF file of the 64-bit class, the only one that the VMM loads.
        // Addresses that no object has are what this is about, so gcc does not warn of them. Set-up does the same.
        run(Command::new("gcc").args(["@flags", "-o", "guest32"]).current_dir(&build));
        let convert = ["-O", "elf64-x86-64", "guest32", "guest64"];
        run(Command::new("objcopy").args(convert).current_dir(&build));
        let image = std::fs::read(build.join("guest64")).unwrap();
        std::fs::remove_dir_all(&build).unwrap();
        image
    })
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
