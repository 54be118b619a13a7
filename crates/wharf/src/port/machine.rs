//! How much memory the process may use.

/// Physical memory in bytes, or the limit of the process's control group if that is lower. `None`: this system
/// does not say.
pub(crate) fn memory_bytes() -> Option<u64> {
    imp::memory_bytes()
}

#[cfg(target_os = "linux")]
mod imp {
    use std::fs;
    use std::path::{Component, Path};

    pub(super) fn memory_bytes() -> Option<u64> {
        memory_bytes_below(Path::new("/"))
    }

    /// The same, of the files below this folder.
    pub(super) fn memory_bytes_below(root: &Path) -> Option<u64> {
        let physical = fs::read_to_string(root.join("proc/meminfo")).ok();
        let physical = physical.as_deref().and_then(total_of);
        let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let limits = groups.lines().filter_map(|line| limit_of(root, line));
        physical.into_iter().chain(limits).min()
    }

    fn total_of(meminfo: &str) -> Option<u64> {
        let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        total.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    }

    /// The lowest limit of a control group and those above it: `0::/path` in version 2, `7:memory:/path` in version 1.
    /// In a container the path may be the host's; then only the container's own group is found, at the top.
    fn limit_of(root: &Path, line: &str) -> Option<u64> {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let (mounts, files): (&[&str], &[&str]) = if controllers.is_empty() {
            (&["sys/fs/cgroup", "sys/fs/cgroup/unified"], &["memory.max", "memory.high"])
        } else if controllers.split(',').any(|controller| controller == "memory") {
            (&["sys/fs/cgroup/memory"], &["memory.limit_in_bytes"])
        } else {
            return None;
        };
        let parts = Path::new(path).components();
        let parts = parts.filter(|part| matches!(part, Component::Normal(_)));
        let mut group = root.to_owned();
        let mut places: Vec<_> = mounts.iter().map(|mount| root.join(mount)).collect();
        for part in parts {
            group.push(part);
            let below = group.strip_prefix(root).unwrap_or(&group).to_owned();
            places.extend(mounts.iter().map(|mount| root.join(mount).join(&below)));
        }
        let files = places.iter().flat_map(|place| files.iter().map(|file| place.join(file)));
        // Where there is no limit the file says `max`, or a number above every memory.
        let said = files.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
        said.min()
    }
}

#[cfg(windows)]
mod imp {
    use windows_sys::Win32::System::SystemInformation::{GlobalMemoryStatusEx, MEMORYSTATUSEX};

    pub(super) fn memory_bytes() -> Option<u64> {
        let bytes = size_of::<MEMORYSTATUSEX>() as u32;
        let mut status = MEMORYSTATUSEX { dwLength: bytes, ..MEMORYSTATUSEX::default() };
        // SAFETY: the structure is this thread's own, and says its size.
        let is_said = unsafe { GlobalMemoryStatusEx(&raw mut status) } != 0;
        // Wine says 0 to a thread that asks while another does.
        (is_said && status.ullTotalPhys > 0).then_some(status.ullTotalPhys)
    }
}

#[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
mod imp {
    pub(super) fn memory_bytes() -> Option<u64> {
        // SAFETY: it takes a number and returns one.
        let said = |name| u64::try_from(unsafe { libc::sysconf(name) }).ok();
        said(libc::_SC_PHYS_PAGES)?.checked_mul(said(libc::_SC_PAGESIZE)?)
    }
}

#[cfg(not(any(target_os = "linux", windows, target_vendor = "apple", target_os = "freebsd")))]
mod imp {
    pub(super) fn memory_bytes() -> Option<u64> {
        None
    }
}

#[cfg(all(test, not(any(loom, shuttle, miri))))]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn this_machine_has_memory() {
        let bytes = memory_bytes().unwrap();
        assert!((64 * MIB..1 << 50).contains(&bytes), "{bytes}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_lowest_limit_of_all_groups_above_the_process_counts() {
        use std::fs;

        const GIB: u64 = 1 << 30;
        let group_of = |path| ("proc/self/cgroup", format!("1:cpu,cpuacct:/a\n0::{path}\n"));
        let (whole, unlimited) = (8 * GIB, 9_223_372_036_854_771_712_u64);
        let limit = |file, bytes: u64| (file, format!("{bytes}\n"));
        let none = |file| (file, "max\n".to_owned());
        let v1 = ("proc/self/cgroup", "9:name=systemd:/a\n7:hugetlb,memory:/a/b\n".to_owned());
        let max = "sys/fs/cgroup/a/b/memory.max";
        let cases = [
            ("none says anything", vec![], whole),
            ("version 2", vec![group_of("/a/b"), limit(max, GIB)], GIB),
            ("without a limit", vec![group_of("/a/b"), none(max)], whole),
            (
                "the group above",
                vec![group_of("/a/b"), none(max), limit("sys/fs/cgroup/a/memory.max", 2 * GIB)],
                2 * GIB,
            ),
            (
                "it is slowed down first",
                vec![
                    group_of("/a/b"),
                    limit(max, 2 * GIB),
                    limit("sys/fs/cgroup/a/b/memory.high", GIB),
                ],
                GIB,
            ),
            ("more than there is", vec![group_of("/a/b"), limit(max, 9 * GIB)], whole),
            (
                "a container's own group is at the top",
                vec![group_of("/../elsewhere"), limit("sys/fs/cgroup/memory.max", GIB)],
                GIB,
            ),
            (
                "another group's limit",
                vec![group_of("/a"), limit(max, GIB), limit("sys/fs/cgroup/b/memory.max", GIB)],
                whole,
            ),
            (
                "version 1",
                vec![
                    v1.clone(),
                    limit("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", unlimited),
                    limit("sys/fs/cgroup/memory/a/memory.limit_in_bytes", GIB),
                ],
                GIB,
            ),
            (
                "version 1, in a container",
                vec![v1, limit("sys/fs/cgroup/memory/memory.limit_in_bytes", 3 * GIB)],
                3 * GIB,
            ),
            ("a path that leads out", vec![group_of("/../../etc")], whole),
            ("nonsense", vec![group_of("/a/b"), (max, "much\n".to_owned())], whole),
        ];
        let scratch = std::env::temp_dir().join(format!("wharf-machine-{}", std::process::id()));
        for (what, files, expected) in cases {
            let meminfo =
                ("proc/meminfo", format!("MemTotal: {} kB\nMemFree: 1 kB\n", whole / 1024));
            for (path, text) in [meminfo].into_iter().chain(files) {
                let path = scratch.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            let said = imp::memory_bytes_below(&scratch);
            fs::remove_dir_all(&scratch).unwrap();
            assert_eq!(said, Some(expected), "{what}");
        }
        assert_eq!(imp::memory_bytes_below(&scratch), None, "no file at all");
    }
}
