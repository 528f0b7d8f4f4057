//! walbanger: is SQLite safe on this shared volume, and if not, which broken promise is to blame?

pub mod bang;
pub mod check;
pub mod cli;
pub mod codes;
pub mod compare;
pub mod doctor;
pub mod document;
pub mod evidence;
pub mod exit;
pub mod forensics;
pub mod history;
pub mod ids;
pub mod judge;
pub mod merge;
pub mod ours;
pub mod output;
pub mod place;
pub mod probe;
pub mod profile;
mod recordlock;
pub mod report;
pub mod rng;
pub mod selftest;
pub mod stop;
pub mod sys;
pub mod wal;
mod workplace;
