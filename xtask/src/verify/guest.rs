//! Debian 12's kernel as a guest: downloads it, makes an initial RAM file system around one program, boots it under
//! qemu-system with software emulation (guests under KVM hang on some hosts), and reads the console.
//!
//! The guest has no network and no disk, and is ended when it takes longer than [`PATIENCE`].

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{initramfs::Archive, report::Report};
use crate::{run, setup};

/// How long the guest may take: it boots in about half a minute on a slow processor.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the guest's first process does. The kernel starts it with `/` writable and nothing mounted.
const INIT: &str = "#!/busybox sh
/busybox mount -t proc proc /proc
/busybox mount -t sysfs sysfs /sys
/busybox mount -t devtmpfs devtmpfs /dev
/busybox mount -t bpf bpf /sys/fs/bpf
/busybox ip link set lo up
echo \"guest: kernel $(/busybox uname -r)\"
/verify-guest
echo \"guest: exit $?\"
/busybox poweroff -f
";

/// Runs the program in the guest. Gives the guest's kernel release and what the program reported.
pub(super) fn boot(program: &Path) -> Result<(String, Report)> {
    let folder = run::target().join("verify");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let kernel = provide(&folder, &kernel_package, "boot/vmlinuz-*")?;
    let busybox = provide(&folder, &|| Ok("busybox-static".to_owned()), "bin/busybox")?;
    let image = folder.join("initramfs.cpio");
    fs::write(&image, pack(program, &busybox)?).with_context(|| format!("cannot write {}", image.display()))?;
    println!("booting {} (software emulation, up to {} s)", kernel.display(), PATIENCE.as_secs());
    let console = watch(emulator(&kernel, &image))?;
    // The firmware leaves its escape sequences before the first line.
    let said = |word: &str| console.lines().find_map(|line| Some(line.split_once(word)?.1.trim().to_owned()));
    let Some(release) = said("guest: kernel ") else { bail!("the guest did not boot; its console:\n{console}") };
    match said("guest: exit ").as_deref() {
        Some("0") => Ok((release, Report::parse(&console).context("in the guest")?)),
        Some(code) => bail!("on Linux {release} verify-guest exited with {code}; the console:\n{console}"),
        None => {
            bail!("on Linux {release} verify-guest did not end in {} s; the console:\n{console}", PATIENCE.as_secs())
        }
    }
}

/// The file that matches `member` in a Debian package, downloaded into `folder` unless it is there from before.
fn provide(folder: &Path, package: &dyn Fn() -> Result<String>, member: &str) -> Result<PathBuf> {
    if let Some(file) = matching(folder, member)? {
        return Ok(file);
    }
    let package = package()?;
    setup::download(&[&package], folder)?;
    let Some(archive) = matching(folder, &format!("{package}_*"))? else { bail!("apt-get downloaded no {package}") };
    let mut unpack = Command::new("dpkg-deb");
    let mut unpack = unpack.arg("--fsys-tarfile").arg(&archive).stdout(Stdio::piped()).spawn().context("dpkg-deb")?;
    let pipe = unpack.stdout.take().expect("its standard output is a pipe");
    let mut tar = Command::new("tar");
    tar.arg("-x").arg("-C").arg(folder).args(["--strip-components=2", "--wildcards", &format!("./{member}")]);
    let extracted = run::output(tar.stdin(pipe));
    unpack.wait().context("dpkg-deb")?;
    extracted?;
    fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))?;
    matching(folder, member)?.with_context(|| format!("{package} has no {member}"))
}

/// The last file in `folder` whose name is that of `pattern`; a `*` at its end stands for anything.
fn matching(folder: &Path, pattern: &str) -> Result<Option<PathBuf>> {
    let name = pattern.rsplit('/').next().unwrap_or(pattern);
    let fits = |file: &str| name.strip_suffix('*').map_or(file == name, |start| file.starts_with(start));
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        if fits(&entry.file_name().to_string_lossy()) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files.pop())
}

/// The newest plain kernel of Debian 12 that the package lists know.
fn kernel_package() -> Result<String> {
    let names = run::output(run::command("apt-cache").args(["pkgnames", "linux-image-6.1."]))?;
    newest_kernel(&names).with_context(|| {
        "the package lists know no linux-image-6.1.*-amd64\nrun: sudo apt-get update, with Debian 12 (bookworm) among the sources"
    })
}

fn newest_kernel(names: &str) -> Option<String> {
    // linux-image-6.1.0-56-amd64: the number before -amd64 counts the ABI; the flavours and -unsigned have more words.
    let abi = |name: &str| name.strip_prefix("linux-image-6.1.0-")?.strip_suffix("-amd64")?.parse::<u32>().ok();
    names.lines().filter_map(|name| Some((abi(name)?, name))).max().map(|(_, name)| name.to_owned())
}

/// The initial RAM file system: the program with its shared libraries, busybox, and the script that runs them.
fn pack(program: &Path, busybox: &Path) -> Result<Vec<u8>> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let mut archive = Archive::default();
    for folder in ["proc", "sys", "dev", "tmp", "run"] {
        archive.folder(folder);
    }
    archive.device("dev/console", 5, 1);
    archive.file("init", INIT.as_bytes());
    archive.file("busybox", &read(busybox)?);
    archive.file("verify-guest", &read(program)?);
    for library in libraries(&run::output(Command::new("ldd").arg(program))?) {
        archive.file(library.trim_start_matches('/'), &read(Path::new(library))?);
    }
    Ok(archive.finish())
}

/// Paths of the shared libraries and of the dynamic linker in what `ldd` prints.
fn libraries(ldd: &str) -> Vec<&str> {
    ldd.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/'))).collect()
}

fn emulator(kernel: &Path, image: &Path) -> Command {
    let mut qemu = run::command("qemu-system-x86_64");
    qemu.args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1024", "-nographic", "-no-reboot", "-nic", "none"]);
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(image);
    qemu.args(["-append", "console=ttyS0 panic=-1 loglevel=4"]);
    qemu
}

/// Runs the emulator until it ends or our patience does; gives what it printed.
fn watch(mut emulator: Command) -> Result<String> {
    let mut guest = emulator.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("qemu-system-x86_64")?;
    let output = guest.stdout.take().expect("its standard output is a pipe");
    let (sender, lines) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            // The receiver is gone when our patience ended, and then nobody wants the rest.
            let _ = sender.send(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
    });
    let deadline = Instant::now() + PATIENCE;
    let mut console = String::new();
    while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        console.push_str(&line);
        console.push('\n');
    }
    // Ended already, or to be ended now.
    let _ = guest.kill();
    guest.wait().context("qemu-system-x86_64")?;
    reader.join().expect("the reader does not panic");
    Ok(console)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_plain_kernel_is_chosen() {
        let names = "linux-image-6.1.0-9-amd64\nlinux-image-6.1.0-56-amd64\nlinux-image-6.1.0-57-cloud-amd64\n\
                     linux-image-6.1.0-58-rt-amd64\nlinux-image-6.1.0-59-amd64-unsigned\nlinux-image-6.1.0-60-arm64\n";
        assert_eq!(newest_kernel(names).as_deref(), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(newest_kernel(""), None);
    }

    #[test]
    fn libraries_are_read_from_ldd() {
        let ldd = "\tlinux-vdso.so.1 (0x00007f)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                   \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(libraries(ldd), ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }
}
