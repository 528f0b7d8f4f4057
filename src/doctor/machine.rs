//! The machine: FUSE and how well it serves, limits, Docker, and views that nobody serves any more.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use walbanger_fuse::{
    DataChoice, DataPath, LockMode, MountOptions, Plan, clear_stale, mount, our_mounts,
    require_fuse,
};

use super::{Finding, within};
use crate::selftest::{Unproven, prove_apart};
use crate::stop;
use crate::workplace::Workplace;

/// A replica holds four files for each connection, a daemon one for each inode in use.
const FEW_FILES: u64 = 4096;

/// Who takes longer to answer does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn look(tell: &mut dyn FnMut(Finding)) {
    views(tell);
    // Views that were mounted are unmounted before a signal ends this.
    stop::hold_signals();
    let fuse = fuse();
    stop::let_signals_through();
    tell(fuse);
    tell(limit_of_files());
    tell(docker());
    tell(sqlite());
}

/// Views whose daemon is dead, or does not answer, trouble whoever looks at them.
fn views(tell: &mut dyn FnMut(Finding)) {
    let mut served = 0;
    for view in our_mounts() {
        let path = view.clone();
        let state = within(PATIENCE, move || (std::fs::metadata(&path).err(), clear_stale(&path)));
        let view = view.display();
        match state {
            None => tell(Finding::warning(
                "views",
                format!("{view} does not answer: its daemon hangs or was stopped"),
                "let it go on (kill -CONT), or end it; the view can be cleared then",
            )),
            Some((None, _)) => served += 1,
            Some((Some(_), true)) => tell(Finding::good(
                "stale views",
                format!("{view}: its daemon was dead; it is cleared away now"),
            )),
            Some((Some(error), false)) => tell(Finding::warning(
                "views",
                format!("{view} cannot be used: {error}"),
                "if its daemon is dead, its owner or root can clear it away: umount -l",
            )),
        }
    }
    tell(Finding::good("views", format!("{served} in use")));
}

fn fuse() -> Finding {
    if let Err(why) = require_fuse() {
        return Finding::bad("fuse", why, "without it there is run, but no mount and no compare");
    }
    match trial_mount() {
        Ok((DataPath::Passthrough, _)) => Finding::good(
            "fuse",
            "two views were mounted, kept their promises, and pass data through the kernel",
        ),
        Ok((path, why)) => Finding::warning(
            "fuse",
            format!(
                "a view was mounted and kept its promises, with {}{}",
                path.describe(),
                why.map(|why| format!(" ({why})")).unwrap_or_default()
            ),
            "several views share memory with kernel passthrough only: Linux 6.9 or later, as \
             root, with the volume on a file system that is not stacked (no overlay)",
        ),
        Err(why) => Finding::bad("fuse", why, "a view must be possible among the temporary files"),
    }
}

/// Mounts views for a moment and has them prove themselves. Returns how data went.
fn trial_mount() -> Result<(DataPath, Option<String>), String> {
    let temporary = std::env::temp_dir();
    let place = Workplace::below(&temporary)
        .map_err(|error| format!("cannot use TMPDIR, {}: {error}", temporary.display()))?;
    let directory = |name: &str| place.directory(name).map_err(|error| error.to_string());
    let (volume, all) = (directory("volume")?, [directory("view1")?, directory("view2")?]);
    let attempt = |views: &[PathBuf]| {
        let mounted = mount(&MountOptions {
            volume: volume.clone(),
            views: views.to_vec(),
            plan: Plan::default(),
            locks: LockMode::Forward,
            data: DataChoice::Best,
            threads: 1,
            idle: walbanger_fuse::Idle::Poll,
            keep_names: Duration::ZERO,
            durability: walbanger_fuse::Durability::Untracked,
            record: None,
        })
        .map_err(|error| error.to_string())?;
        let view = &mounted.report().views[0];
        let (path, why) = (view.data, view.fallback.clone());
        // Without passthrough several views have a memory of their own each, and are not refused
        // here but by the command that would use them.
        let provable = if path == DataPath::Passthrough { views } else { &views[..1] };
        let proved = prove_apart(provable);
        drop(mounted);
        match proved {
            Ok(()) => Ok((path, why)),
            Err(Unproven::Broken(why) | Unproven::Interrupted(why)) => Err(why),
        }
    };
    attempt(&all)
}

fn limit_of_files() -> Finding {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if hard >= FEW_FILES => {
            Finding::good("open files", format!("a process may have {hard}"))
        }
        Ok((_, hard)) => Finding::warning(
            "open files",
            format!("a process may have no more than {hard}"),
            "raise the hard limit (ulimit -Hn) for many replicas or large trees",
        ),
        Err(error) => Finding::warning("open files", error.to_string(), "see getrlimit(2)"),
    }
}

fn docker() -> Finding {
    let asked = ["info", "--format", "{{.ServerVersion}} {{.Swarm.LocalNodeState}}"];
    let needed = "needed for containers only (make single, make swarm, compare --launcher docker)";
    let Some(answer) = within(PATIENCE, move || Command::new("docker").args(asked).output()) else {
        return Finding::warning("docker", "the Engine does not answer in time", needed);
    };
    match answer {
        Err(error) => Finding::warning("docker", format!("no client: {error}"), needed),
        Ok(output) if !output.status.success() => {
            let said = String::from_utf8_lossy(&output.stderr);
            let line = said.lines().next_back().unwrap_or("it said nothing").to_owned();
            Finding::warning("docker", format!("the Engine does not answer: {line}"), needed)
        }
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            let (version, swarm) = said.trim().split_once(' ').unwrap_or((said.trim(), "unknown"));
            let found = Finding::good("docker", format!("Engine {version}, swarm {swarm}"));
            let init = "for make swarm: docker swarm init --advertise-addr 127.0.0.1";
            Finding { remedy: (swarm != "active").then(|| init.to_owned()), ..found }
        }
    }
}

fn sqlite() -> Finding {
    // The WAL-reset bug: https://sqlite.org/wal.html, "The WAL-Reset Bug", mended in 3.51.3.
    const MENDED: i32 = 3_051_003;
    let version = rusqlite::version();
    if rusqlite::version_number() >= MENDED {
        return Finding::good("sqlite", format!("{version} is built in"));
    }
    Finding::warning(
        "sqlite",
        format!("{version} is built in, and can itself lose commits when a WAL is reset"),
        "rare, and of two checkpoints at one moment; keep it in mind before a volume is blamed",
    )
}
