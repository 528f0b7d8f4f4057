//! `walbanger mount`: its options, its words, and how it ends.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use crossbeam_channel::{Receiver, never, select};
use serde::Serialize;
use walbanger_fuse::{
    CrashReport, DataChoice, DataPath, DoubleGrant, Durability, LockMode, MountError, MountOptions,
    Mounted, Plan, Report, ViewReport,
};

use super::faults::{FaultArgs, ViewArgs};
use super::profiles::{self, ProfileArgs};
use super::program;
use super::run::duration;
use crate::ctl::{Answer, Control, Order, Ordered};
use crate::document::Head;
use crate::exit::Exit;
use crate::ids::Seed;
use crate::output;
use crate::place::{self, NoDirectory};
use crate::selftest::{Unproven, prove_apart};
use crate::stop::{self, Stop};
use crate::sys;

const EXAMPLES: &str = "\
Examples:
  walbanger mount /srv/volume /mnt/view                  a clean view of a volume
  walbanger mount --delay-fsync /srv/volume /mnt/view    every fsync 50 ms late
  walbanger mount --drop-lock=0.01 vol view1 view2       one lock in a hundred is a lie
  walbanger mount --profile virtiofsd-auto vol host guest   view 1 is the host, view 2 the guest
  walbanger mount --self-test vol view1 view2            prove the views before they are used

Stays in the foreground until SIGINT, SIGTERM or umount, then says what it saw and did. Each view is
a mount of its own: start a replica on each.";

/// Options of `mount`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct MountArgs {
    /// The directory behind the views
    volume: PathBuf,

    /// Where to mount: one empty directory for each view, outside the volume
    #[arg(required = true, value_name = "VIEW")]
    views: Vec<PathBuf>,

    #[command(flatten)]
    profile: ProfileArgs,

    #[command(flatten)]
    faults: FaultArgs,

    #[command(flatten)]
    how: ViewArgs,

    /// How long the kernel may keep names and attributes; only right while nobody changes the
    /// volume but through its single view
    #[arg(long, default_value = "0s", value_parser = duration, value_name = "TIME")]
    #[arg(help_heading = "Mount")]
    keep_names: Duration,

    /// Remember what an honest fsync has made durable (tracked), so that `walbanger ctl VIEW crash`
    /// can take the rest; data then comes to the daemon, which takes its time
    #[arg(long, default_value = "untracked", value_parser = durability, value_name = "HOW")]
    #[arg(help_heading = "Mount")]
    durability: Durability,

    /// Record everything that happens to a tracked volume, for `walbanger crash-states`: a new file,
    /// outside the volume
    #[arg(long, value_name = "FILE", help_heading = "Mount")]
    record: Option<PathBuf>,

    /// What fault decisions follow from [default: drawn and printed]
    #[arg(long, value_name = "N", help_heading = "Mount")]
    seed: Option<Seed>,

    /// Check first that locks exclude, mappings are coherent and a WAL commit lands
    #[arg(long, help_heading = "Mount")]
    self_test: bool,

    /// Break guarantees even for files that walbanger did not make
    #[arg(long, help_heading = "Mount")]
    force: bool,

    /// Print nothing but one JSON document at the end
    #[arg(long, help_heading = "Mount")]
    json: bool,

    /// Say when the views are up, and end with standard input: for a process that starts this one
    #[arg(long, hide = true, requires = "json")]
    supervised: bool,
}

/// The first line of a supervised mount.
#[derive(Debug, Serialize)]
struct Ready {
    ready: bool,
}

/// The document of `mount --json`.
#[derive(Debug, Serialize)]
struct Document {
    #[serde(flatten)]
    head: Head,
    plan: Plan,
    #[serde(flatten)]
    report: Report,
}

/// Mounts, waits, unmounts.
pub(super) fn execute(args: &MountArgs) -> anyhow::Result<Exit> {
    let seed = match args.seed {
        Some(seed) => seed,
        None => Seed(sys::random_u64()? >> 32),
    };
    refuse_stray_value(&args.volume)?;
    if let Err(wrong @ (NoDirectory::Stale { .. } | NoDirectory::Unusable { .. })) =
        place::directory(&args.volume)
    {
        return Err(wrong.into());
    }
    let given = args.profile.load()?;
    let plan = profiles::plan(given.as_ref(), &args.faults, seed);
    profiles::refuse_missing_views(&plan, args.views.len())?;
    if plan.is_violating() && !args.force {
        refuse_other_peoples_files(&args.volume)?;
    }
    let (sender, stop) = stop::channel();
    if args.supervised {
        stop::with_stdin(sender);
    }
    let mounted = match walbanger_fuse::mount(&MountOptions {
        volume: args.volume.clone(),
        views: args.views.clone(),
        plan: plan.clone(),
        locks: args.how.locks,
        data: args.how.data,
        threads: args.how.threads.into(),
        idle: args.how.idle,
        keep_names: args.keep_names,
        durability: args.durability,
        record: args.record.clone(),
    }) {
        Ok(mounted) => mounted,
        Err(error) => {
            program::complain(&error.to_string());
            return Ok(exit_of(&error));
        }
    };
    if let Err((exit, why)) = fit(&mounted, args) {
        program::complain(&why);
        return Ok(exit);
    }
    let control = Control::listen(mounted.views())
        .inspect_err(|error| tracing::warn!(%error, "walbanger ctl cannot reach this mount"));
    if args.supervised {
        output::line(&serde_json::to_string(&Ready { ready: true })?)?;
    } else if !args.json {
        output::line(&greeting(args, &mounted, &plan))?;
    }
    let orders = control.as_ref().map_or_else(|_| never(), |control| control.orders().clone());
    let why = wait(&mounted, &stop, &orders, seed);
    // Before the numbers of the views can be those of other mounts, whose sockets have their names.
    drop(control);
    tell(args, seed, plan, mounted.unmount())?;
    Ok(match why {
        Some(Stop::Signal(signal)) => Exit::Signal(signal),
        _ => Exit::Clean,
    })
}

/// Whether the views are fit for use, as far as that was to be found out.
fn fit(mounted: &Mounted, args: &MountArgs) -> Result<(), (Exit, String)> {
    let asked_for = matches!(args.how.data, DataChoice::Only(_));
    let exit = if asked_for { Exit::Usage } else { Exit::Unable };
    coherent(&mounted.report(), args).map_err(|why| (exit, why))?;
    if !args.self_test {
        return Ok(());
    }
    let views: Vec<_> = mounted.views().map(Path::to_owned).collect();
    match prove_apart(&views) {
        Err(Unproven::Broken(why) | Unproven::Interrupted(why)) => Err((Exit::Unable, why)),
        _ => Ok(()),
    }
}

/// Says what the mount saw and did.
fn tell(args: &MountArgs, seed: Seed, plan: Plan, report: Report) -> anyhow::Result<()> {
    for view in report.views.iter().filter(|view| view.detached) {
        program::complain(&format!(
            "files on {} were still open: it is detached, and ends when the last is closed",
            view.path
        ));
    }
    if args.json {
        let head = Head::new("walbanger-mount", "mount", seed);
        output::line(&serde_json::to_string(&Document { head, plan, report })?)?;
    } else {
        output::line(&summary(&report))?;
    }
    Ok(())
}

/// Several views are one memory only where the kernel passes through.
fn coherent(report: &Report, args: &MountArgs) -> Result<(), String> {
    let passes = |view: &ViewReport| view.data == DataPath::Passthrough;
    if report.views.len() < 2 || args.force || report.views.iter().all(passes) {
        return Ok(());
    }
    let reason = report.views.iter().find_map(|view| view.fallback.clone());
    Err(format!(
        "several views without kernel passthrough do not share memory, and SQLite breaks on them \
         with nothing injected ({}); mount one view, or use --force",
        reason.unwrap_or_else(|| "as --data asks".to_owned())
    ))
}

/// Waits for a reason to stop, and does what it is told meanwhile; `None` when all views were
/// unmounted from outside, or by order.
fn wait(
    mounted: &Mounted,
    stop: &Receiver<Stop>,
    orders: &Receiver<Ordered>,
    seed: Seed,
) -> Option<Stop> {
    let mut left = mounted.views().count();
    while left > 0 {
        select! {
            recv(stop) -> why => return why.ok(),
            recv(mounted.ended()) -> _ => left -= 1,
            recv(orders) -> order => if let Ok((order, answer)) = order {
                // Whoever asked may have gone.
                let _ = answer.send(obey(mounted, order, seed));
                if order == Order::Quit {
                    return None;
                }
            },
        }
    }
    None
}

fn obey(mounted: &Mounted, order: Order, seed: Seed) -> Answer {
    match order {
        Order::Status => Answer::Status(seed, Box::new(mounted.report())),
        Order::Faults(on) => {
            mounted.switch_faults(on);
            Answer::Done
        }
        Order::Crash(cut) => match mounted.crash(&cut) {
            Ok(report) => Answer::Crashed(Box::new(report)),
            Err(error) => Answer::Refused(error.to_string()),
        },
        Order::Quit => Answer::Done,
    }
}

fn durability(text: &str) -> Result<Durability, String> {
    match text {
        "untracked" => Ok(Durability::Untracked),
        "tracked" => Ok(Durability::Tracked),
        _ => Err("not one of untracked, tracked".to_owned()),
    }
}

fn exit_of(error: &MountError) -> Exit {
    if error.is_usage() { Exit::Usage } else { Exit::Unable }
}

/// `--drop-lock 0.01 volume view` means `--drop-lock=0.01`, and would take 0.01 for the volume.
fn refuse_stray_value(volume: &Path) -> anyhow::Result<()> {
    let text = volume.to_string_lossy();
    let value = text.parse::<f64>().is_ok() || super::run::duration(&text).is_ok();
    anyhow::ensure!(
        !value || volume.try_exists().unwrap_or(true),
        "{text} looks like the value of a flag; write it with '=', as in --drop-lock=0.01"
    );
    Ok(())
}

/// A plan that breaks guarantees is for databases that nobody will miss.
fn refuse_other_peoples_files(volume: &Path) -> anyhow::Result<()> {
    let Some(file) =
        crate::ours::first_foreign(volume).with_context(|| volume.display().to_string())?
    else {
        return Ok(());
    };
    anyhow::bail!(
        "{} is not walbanger's, and this plan can damage it; use an empty directory, or --force",
        file.display()
    )
}

/// A path that stays on its line.
fn shown(path: impl AsRef<Path>) -> String {
    output::one_line(&path.as_ref().to_string_lossy()).into_owned()
}

fn greeting(args: &MountArgs, mounted: &Mounted, plan: &walbanger_fuse::Plan) -> String {
    let report = mounted.report();
    let mut text = String::new();
    for stale in mounted.cleared() {
        let _ = writeln!(text, "Cleared the stale view {} of a dead daemon.", shown(stale));
    }
    let views: Vec<_> = mounted.views().map(shown).collect();
    let locks = match args.how.locks {
        LockMode::Forward => "locks forwarded",
        LockMode::Local => "locks local to each view",
    };
    let data = report.data();
    let _ =
        write!(text, "Mounted {} on {} ({data}, {locks}); ", shown(&args.volume), views.join(", "));
    let _ = match plan.flags().as_slice() {
        [] => write!(text, "no faults."),
        flags => write!(text, "{} --seed={}.", flags.join(" "), plan.seed),
    };
    if let Some(reason) = report.views.first().and_then(|view| view.fallback.as_ref()) {
        let _ = write!(text, "\nNo passthrough: {reason}.");
    }
    if report.views.iter().any(|view| view.data != DataPath::Passthrough) {
        text.push_str(match report.views.len() {
            1 => {
                "\nAll replicas must use this one view: the volume behind it does not share its memory."
            }
            _ => "\nAll replicas must use one of these views: they do not share memory.",
        });
    }
    text
}

/// What the mount saw and did, for people.
fn summary(report: &Report) -> String {
    let mut text = format!("Unmounted after {:.1} s.", report.seconds);
    text.push('\n');
    text.push_str(&tell_calls(report));
    for crash in &report.crashes {
        text.push('\n');
        text.push_str(&tell_crash(crash));
    }
    if let Some(first) = report.first_double_grants.first() {
        let _ = write!(
            text,
            "\nLedger: {} times a lock was promised to two owners at once; first:\n  {}.",
            report.double_grants,
            tell_double_grant(first, report.started)
        );
    }
    text
}

/// What a power cut took, for people.
pub(super) fn tell_crash(crash: &CrashReport) -> String {
    let CrashReport { cut, at_stake, lost, .. } = crash;
    let mut text = format!("Power cut ({cut}): {at_stake} changes were not durable");
    text.push_str(if lost.is_empty() { ", and all survived." } else { "." });
    for loss in lost {
        let _ = write!(text, "\n  {}.", loss.describe());
    }
    text
}

/// The calls that came, and what the rules did to them, for people.
pub(super) fn tell_calls(report: &Report) -> String {
    let calls: Vec<_> =
        report.calls().into_iter().map(|(call, count)| format!("{count} {call}")).collect();
    let calls = if calls.is_empty() { "none".to_owned() } else { calls.join(", ") };
    let mut text = format!("Calls: {calls}.");
    for fault in &report.faults {
        let _ = write!(text, "\n{}", fault.describe());
    }
    text
}

/// A double grant in words, with its time since `start` on the monotonic clock.
pub(super) fn tell_double_grant(found: &DoubleGrant, start: f64) -> String {
    let DoubleGrant { at, file, lock, bytes, held_by_view, granted_to_view, rule, .. } = found;
    let lock = lock.clone().unwrap_or_else(|| format!("bytes {}..={}", bytes.0, bytes.1));
    let rule = rule.as_deref().unwrap_or("no rule: a fault of walbanger's own");
    format!(
        "{:.3}s view {granted_to_view} was granted {lock} of {file} while view \
         {held_by_view} held it ({rule})",
        at - start
    )
}
